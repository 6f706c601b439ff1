"""Time of an eventful ViTDet-B on batches of streams against the same frames one by one.

    python benchmarks/streams.py VIDEO                  # 8 streams at 672 pixels, two minutes
    python benchmarks/streams.py VIDEO --streams 2 4 8 --k 32 256
    python benchmarks/streams.py VIDEO --record         # keep the rows in benchmarks/results

All streams show the same video with different offsets, to one model with fixed random weights.
Alternately, the next frames of all streams are computed in one batch, and those after them one
stream at a time; times are medians. In a batch, the tokens of all streams go through the linear
layers together. Sums may then be rounded differently, which can change the selection of tokens. The
table has the share of frames in which it did. The error is relative to a single stream that is
forced to the selection of the batch.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from mmvitaccel import TopK, apply_eventful
from mmvitaccel.analysis.timing import alternate
from mmvitaccel.errors import one_sentence_errors
from mmvitaccel.records.recording import Recording, add_record_option
from mmvitaccel.testing.models import sharing_weights, vitdet
from mmvitaccel.video.first_frames import first_frames


@dataclass(frozen=True)
class Result:
    """One row of the table. Times are medians.

    Attributes:
        size: Side of the frames in pixels.
        streams: Streams in a batch.
        k: Tokens that pass each gate.
        batch_ms: Time of a batch with one frame of each stream.
        single_ms: Time of the same number of frames one by one.
        ratio: ``batch_ms / single_ms``.
        flipped: Share of frames in which a gate would have selected other tokens if the frame had
            been computed alone, after the same frames.
        error: Largest difference of a feature to that of a single stream with the same selection,
            over the largest feature.
        frames: Number of timings.
    """

    size: int
    streams: int
    k: int
    batch_ms: float
    single_ms: float
    ratio: float
    flipped: float
    error: float
    frames: int


class Replay:
    """Policy that repeats recorded selections, and counts where its own would have differed."""

    def __init__(self, policy: TopK) -> None:
        self.policy = policy
        self.coming: list[Tensor] = []
        self.flipped = False

    def select(self, error: Tensor) -> Tensor:
        """Return the next recorded mask (1, N) as indices (1, k)."""
        mask = self.coming.pop(0)
        own = torch.zeros_like(mask).scatter_(1, self.policy.select(error), True)
        self.flipped = self.flipped or not torch.equal(own, mask)
        return mask.nonzero()[:, 1][None]


def measure(video: Path, size: int, streams: int, k: int, count: int) -> Result:
    """Time both ways, and compare their outputs."""
    torch.manual_seed(0)
    model = vitdet(img_size=size).eval().requires_grad_(False)
    alone = sharing_weights(model)
    # a first frame, one warm-up frame of each way, then the timed frames
    frames = first_frames(video, size, 2 * count + 3 + streams)
    batches = [torch.cat(frames[t : t + streams]) for t in range(2 * count + 3)]
    names = [f"stream {i}" for i in range(streams)]
    handle, coming = apply_eventful(model, TopK(k), max_streams=streams), iter(batches)

    def batch() -> None:
        with handle.stream(names):
            model(next(coming))

    def single() -> None:
        for name, frame in zip(names, next(coming).split(1)):
            with handle.stream(name):
                model(frame)

    with torch.inference_mode():
        batch()
        times = alternate({"batch": batch, "single": single}, count, warmup=1)
        handle.reset()
        flipped, error = compare(model, handle, alone, k, batches[: count + 1], names)
    batch_ms, single_ms = (1e3 * median(times[way]) for way in ("batch", "single"))
    ratio = batch_ms / single_ms
    return Result(size, streams, k, batch_ms, single_ms, ratio, flipped, error, count)


def compare(model, handle, alone, k: int, batches: list[Tensor], names: list[str]):
    """Return the share of frames with another selection, and the error of the features."""
    replay = Replay(TopK(k))
    other = apply_eventful(alone, replay, max_streams=1)
    outs, chosen = [], []
    for batch in batches:
        with handle.stream(names):
            outs.append(model(batch)[0])
        chosen.append(handle.passed_tokens())
    handle.reset()
    flips, error = [], 0.0
    for place, name in enumerate(names):
        for t, batch in enumerate(batches):
            replay.coming = list(chosen[t][place].flatten(0, 1)) if t else []
            replay.flipped = False
            with other.stream(name):
                (own,) = alone(batch[place : place + 1])
            flips += [replay.flipped] if t else []
            found = outs[t][place]
            error = max(error, float((found - own[0]).abs().max() / own.abs().max()))
    return sum(flips) / len(flips), error


def row_text(row: Result) -> str:
    """Format a row."""
    return (
        f"{row.size:4d}{row.streams:9d}{row.k:6d}{row.batch_ms:10.0f}{row.single_ms:11.0f}"
        f"{row.ratio:8.2f}{row.flipped:9.1%}{row.error:10.1e}"
    )


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the table, and write the rows if requested."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("video", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[672])
    parser.add_argument("--streams", type=int, nargs="+", default=[8])
    parser.add_argument("--k", type=int, nargs="+", default=[32])
    parser.add_argument("--frames", type=int, default=5, help="timings of each way (default: 5)")
    parser.add_argument("--json", metavar="FILE", help="also write the rows to this file")
    add_record_option(parser)
    args = parser.parse_args(argv)
    recording = Recording(args.record, __file__, argv)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}")
    print("size  streams     k  batch ms  single ms   ratio  flipped     error")
    rows = []
    for size, streams, k in product(args.sizes, args.streams, args.k):
        rows.append(measure(args.video, size, streams, k, args.frames))
        print(row_text(rows[-1]), flush=True)
    recording.save([asdict(row) for row in rows])
    if args.json:
        Path(args.json).write_text(json.dumps([asdict(row) for row in rows], indent=2))


if __name__ == "__main__":
    main()
