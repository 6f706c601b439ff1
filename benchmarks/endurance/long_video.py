"""A long video with scene cuts and pauses through one eventful model, against the dense one.

    python benchmarks/endurance/long_video.py --frames 10000
    python benchmarks/endurance/long_video.py --model base --frames 1000 --dtypes float32

Three things must not grow with the number of frames: the error against the dense model, the error
of the running sums against complete attention over the same gated tokens, and the memory. If a run
exceeds a bound, the exit status is 1.
"""

from __future__ import annotations

import argparse
import copy
import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from mmvitaccel import TopFraction, ViTDet, apply_eventful

# Maximum relative error of the running sums against complete attention over the same tokens.
DRIFT = {"float32": 1e-4, "bfloat16": 0.1}
GROWTH_MB = 64.0  # maximum growth of the resident memory, after the first fifth of the frames

MODELS = {
    "small": (dict(img_size=128, patch_size=16, embed_dim=48, depth=4, num_heads=3, window_size=3,
                   window_block_indexes=(0, 2), pretrain_img_size=64), 128),
    "base": ({}, 1024),
}  # fmt: skip


@dataclass
class Result:
    """Measurements of a run.

    Attributes:
        errors: Relative error of the compared frames against the dense model.
        drift: The same against complete attention over the same gated tokens.
        resident: Resident memory of the process in MB, at ten or more frames.
        held: Bytes of all torch tensors that are alive, at the same frames.
        remembered: Bytes of the stream's memory, at the same frames.
    """

    errors: list[float] = field(default_factory=list)
    drift: list[float] = field(default_factory=list)
    resident: list[float] = field(default_factory=list)
    held: list[int] = field(default_factory=list)
    remembered: list[int] = field(default_factory=list)


class Replay:
    """Policy that repeats the selections of another model's gates in its last frame."""

    def __init__(self) -> None:
        self.masks: list[Tensor] = []

    def select(self, error: Tensor) -> Tensor:
        """(B, N) -> (B, N) bool, one gate after the other."""
        return self.masks.pop(0)


def video(size: int, num_frames: int, seed: int = 0) -> Iterator[tuple[Tensor, bool]]:
    """Yield frames (1, 3, size, size), and whether a new scene was announced with each.

    A square moves over a scene with a little noise. From time to time, the scene changes, every
    second time without announcement, or the picture stands still for a while.
    """
    generator = torch.Generator().manual_seed(seed)

    def scene() -> Tensor:
        coarse = torch.randn(1, 3, 8, 8, generator=generator)
        return torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")

    def chance(one_in: int) -> bool:
        return int(torch.randint(one_in, (), generator=generator)) == 0

    background, place, side, pause, scenes = scene(), [0.0, 0.0], size // 5, 0, 0
    frame = background
    for number in range(num_frames):
        cut = number > 0 and chance(150)
        if cut:
            background, pause, scenes = scene(), 0, scenes + 1
        elif not pause and chance(100):
            pause = int(torch.randint(5, 60, (), generator=generator))
        if pause:
            pause -= 1
        else:
            steps = torch.randn(2, generator=generator) * size / 40
            place = [(p + s.item()) % (size - side) for p, s in zip(place, steps)]
            y, x = map(int, place)
            frame = background + 0.01 * torch.randn(background.shape, generator=generator)
            frame[..., y : y + side, x : x + side] = 1.5
        yield frame, cut and scenes % 2 == 0


def run(model: str, dtype: str, num_frames: int, share: float = 0.25, every: int = 1) -> Result:
    """Run the video; the dense model is compared in one of ``every`` frames.

    Args:
        model: Name in :data:`MODELS`.
        dtype: Name of the torch dtype of weights, frames and memory.
        num_frames: Number of frames.
        share: Share of the tokens that pass a gate.
        every: 1 compares each frame with the dense model. The gated twin runs in all frames,
            because it has a memory too.
    """
    config, size = MODELS[model]
    torch.manual_seed(0)
    dense = ViTDet(**config).to(getattr(torch, dtype)).eval()
    for parameter in dense.parameters():
        if model == "small":
            parameter.data = torch.randn(parameter.shape).to(parameter) * 0.2
    eventful, gated, replay = copy.deepcopy(dense), copy.deepcopy(dense), Replay()
    handle = apply_eventful(eventful, TopFraction(share), "exact")
    whole = apply_eventful(gated, replay, "tokenwise")
    result, places = Result(), {num_frames * i // 20 for i in range(1, 21)}
    with torch.inference_mode():
        for number, (frame, cut) in enumerate(video(size, num_frames), 1):
            frame = frame.to(getattr(torch, dtype))
            with handle.stream("video", cut=cut):
                out = eventful(frame)[0]
            replay.masks = list(handle.passed_tokens()[0].flatten(0, 1))
            with whole.stream("video", cut=cut):
                same = gated(frame)[0]
            if handle.frames[0].first != whole.frames[0].first:
                raise SystemExit(f"frame {number}: one of the twins started clean alone")
            result.drift.append(_error(out, same))
            if number % every == 0:
                result.errors.append(_error(out, dense(frame)[0]))
            if number in places:
                _measure(result, handle.memory_bytes)
    return result


def _error(found: Tensor, expected: Tensor) -> float:
    found, expected = found.float(), expected.float()
    return float((found - expected).norm() / expected.norm())


def _storage(x: Tensor) -> torch.UntypedStorage | None:
    """Return the storage of a tensor; None if it has none, as some internal ones of torch 2.1."""
    try:
        return x.untyped_storage()
    except NotImplementedError:
        return None


def _measure(result: Result, remembered: int) -> None:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    result.resident.append(pages * 4096 / 2**20)
    # Compares the type, because isinstance makes some of torch's objects warn
    # Sparse tensors and those of tracers have no storage to measure
    found = (o for o in gc.get_objects() if type(o) in (Tensor, torch.nn.Parameter))
    storages = filter(None, map(_storage, (t for t in found if t.layout == torch.strided)))
    result.held.append(sum({s.data_ptr(): s.nbytes() for s in storages}.values()))
    result.remembered.append(remembered)


def faults(result: Result, dtype: str) -> list[str]:
    """Describe what grew or exceeded its bound, in one sentence each."""
    found = []
    if max(result.drift) > DRIFT[dtype]:
        found.append(f"running sums are {max(result.drift):.2g} off, allowed {DRIFT[dtype]:g}")
    half = len(result.errors) // 2
    first, last = (sum(part) / len(part) for part in (result.errors[:half], result.errors[half:]))
    # A scene change that is not announced causes errors in some frames, at any time.
    if last > 2 * first + 0.05:
        found.append(f"the error grew from {first:.3f} to {last:.3f}")
    if max(result.errors) > 1.5:
        found.append(f"a frame is {max(result.errors):.2f} off")
    settled = len(result.resident) // 5
    growth = max(result.resident[settled:]) - result.resident[settled]
    if growth > GROWTH_MB:
        found.append(f"the resident set grew by {growth:.0f} MB")
    if max(result.remembered) > min(result.remembered):
        found.append(f"the stream's memory went up to {max(result.remembered):,} bytes")
    if max(result.held[settled:]) > 1.05 * result.held[settled]:
        found.append(f"torch's tensors went up to {max(result.held):,} bytes")
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Run each dtype and print the measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=MODELS, default="small")
    parser.add_argument("--frames", type=int, default=10000)
    parser.add_argument(
        "--every",
        type=int,
        default=1,
        help="interval of frames that are compared with the dense model",
    )
    parser.add_argument("--dtypes", nargs="+", choices=DRIFT, default=list(DRIFT))
    args = parser.parse_args(argv)
    wrong = []
    for dtype in args.dtypes:
        result = run(args.model, dtype, args.frames, every=args.every)
        errors, settled = result.errors, len(result.resident) // 5
        print(
            f"{args.model}, {dtype}, {args.frames:,} frames: error mean "
            f"{sum(errors) / len(errors):.4f}, largest {max(errors):.4f}; drift of the sums at "
            f"most {max(result.drift):.2g}; resident {result.resident[settled]:.0f} MB after a "
            f"fifth, {result.resident[-1]:.0f} MB at the end; stream {result.remembered[-1]:,} "
            f"bytes; tensors {result.held[settled]:,} to {result.held[-1]:,} bytes",
            flush=True,
        )
        wrong += [f"{dtype}: {fault}" for fault in faults(result, dtype)]
    if wrong:
        raise SystemExit("; ".join(wrong))


if __name__ == "__main__":
    main()
