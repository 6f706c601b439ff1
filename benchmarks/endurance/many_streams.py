"""Many streams, interleaved at random, some of which are kept in memory.

    python benchmarks/endurance/many_streams.py --streams 64 --kept 16 --frames 20000

Each frame is compared, bit for bit, with the same stream in a separate model that starts new where
the stream was dropped. A summary line is printed; the first mistake ends the run with exit status
1.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch

from mmvitaccel import TopK, ViTDet, apply_eventful


@dataclass(frozen=True)
class Result:
    """Summary of a run.

    Attributes:
        frames: Number of frames.
        clean_starts: Number of frames with which a stream began, or returned after it was dropped.
        most_kept: Largest number of streams in memory at a time.
        most_bytes: Maximum memory of the streams.
        bytes_of_one: Memory of one stream.
        warnings: Number of warnings about dropped streams.
    """

    frames: int
    clean_starts: int
    most_kept: int
    most_bytes: int
    bytes_of_one: int
    warnings: int


class Mistake(Exception):
    """A frame has a wrong result, or more was kept than is allowed."""


def make_model() -> ViTDet:
    """Make a small backbone; the weights are the same every time."""
    torch.manual_seed(0)
    model = ViTDet(
        img_size=64, patch_size=8, embed_dim=32, depth=3, num_heads=4, window_size=3,
        window_block_indexes=(0, 2), pretrain_img_size=32,
    )  # fmt: skip
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape) * 0.2
    return model.eval()


def run(num_streams: int, kept: int, num_frames: int, attention: str = "exact") -> Result:
    """Interleave the streams.

    Raises:
        Mistake: Names the frame and the stream.
    """
    model = make_model()
    handle = apply_eventful(model, TopK(6), attention, max_streams=kept)
    alone = []
    for _ in range(num_streams):
        single = make_model()
        alone.append((single, apply_eventful(single, TopK(6), attention)))
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(num_streams, 1, 3, 40, 56, generator=generator)
    seen = [0] * num_streams
    starts = most_kept = most_bytes = one = 0
    with warnings.catch_warnings(record=True) as said, torch.no_grad():
        warnings.simplefilter("always")
        for number in range(num_frames):
            who = _next_stream(num_streams, number, generator)
            moving = torch.rand(1, 1, 40, 56, generator=generator) < 0.25
            images[who] += 0.3 * moving * torch.randn(1, 3, 40, 56, generator=generator)
            known = who in handle.streams
            with handle.stream(who, seen[who]):
                out = model(images[who])[0]
            first = handle.frames[0].first
            if first == known:
                raise Mistake(f"frame {number}, stream {who}: kept {known}, clean {first}")
            single, its = alone[who]
            if first:
                its.reset()
            if not torch.equal(out, single(images[who])[0]):
                raise Mistake(f"frame {number}, stream {who}: not as alone (clean: {first})")
            seen[who] += 1
            starts += first
            most_kept = max(most_kept, len(handle.streams))
            if number % 50 == 0:
                one = max(one, its.memory_bytes)
                most_bytes = max(most_bytes, handle.memory_bytes)
    dropped = [w for w in said if "was evicted" in str(w.message)]
    result = Result(num_frames, starts, most_kept, most_bytes, one, len(dropped))
    _check(result, kept)
    return result


def _next_stream(num_streams: int, number: int, generator: torch.Generator) -> int:
    """Choose a stream at random, half of the time among eight that change slowly and stay kept."""
    if torch.rand((), generator=generator) < 0.5:
        busy = min(8, num_streams)
        return int(number // 200 + torch.randint(busy, (), generator=generator)) % num_streams
    return int(torch.randint(num_streams, (), generator=generator))


def _check(result: Result, kept: int) -> None:
    if result.most_kept > kept or result.most_bytes > kept * result.bytes_of_one:
        raise Mistake(f"more than {kept} streams' memory is kept: {result}")
    if result.warnings > 1:
        raise Mistake(f"dropping was said {result.warnings} times in one run")


def main(argv: Sequence[str] | None = None) -> None:
    """Run each attention mode and print a summary."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--kept", type=int, default=16)
    parser.add_argument("--frames", type=int, default=20000)
    parser.add_argument("--attention", nargs="+", default=["exact", "tokenwise", "delta"])
    args = parser.parse_args(argv)
    for attention in args.attention:
        try:
            result = run(args.streams, args.kept, args.frames, attention)
        except Mistake as mistake:
            raise SystemExit(f"{attention}: {mistake}") from None
        told = ", ".join(f"{name} {value:,}" for name, value in asdict(result).items())
        print(f"{attention}: {told}", flush=True)


if __name__ == "__main__":
    main()
