"""Time of an eventful ViTDet-B against the same model dense, on a real video.

    python benchmarks/eventful.py VIDEO                      # the paper's sizes, some 15 minutes
    python benchmarks/eventful.py VIDEO --quick              # one size, under a minute
    python benchmarks/eventful.py VIDEO --sizes 1024 --k 512 256 --modes exact tokenwise
    python benchmarks/eventful.py VIDEO --json out.json --plot out.png
    python benchmarks/eventful.py VIDEO --record             # keep the rows in benchmarks/results

Weights are random and fixed, frames follow each other as in the video, and both models share
weights and frames. Each eventful model runs in turn with the dense one, whose attention is fused
and has its relative positions, in one process; times are medians over the frames after the first.
Beside the ratio of times stands the ratio of multiply-adds, counted as they ran: what skipping
would give if nothing else took time. All of it is the backbone; frames are prepared beforehand.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from threading import Event, Thread

import torch
from torch import Tensor, nn

from mmvitaccel import TopK, apply_eventful
from mmvitaccel.analysis.timing import alternate
from mmvitaccel.core.macs.counter import MacsCounter
from mmvitaccel.errors import one_sentence_errors
from mmvitaccel.records.recording import Recording, add_record_option
from mmvitaccel.testing.models import sharing_weights, vitdet
from mmvitaccel.video.first_frames import first_frames

# Tokens let through, by size of the image: the paper's tables, and all of them.
BUDGETS = {1024: (256, 512, 1024, 2048, 4096), 672: (128, 256, 512, 1764)}
QUICK_BUDGETS = {672: (256,)}


@dataclass(frozen=True)
class Result:
    """One row of the table. Times are medians, in milliseconds a frame, but the first frame's.

    Attributes:
        size: Side of the frames, in pixels.
        mode: Of attention.
        k: Tokens that each gate lets through.
        dense_ms: Time of the dense model.
        first_ms: Time of the eventful model's first frame.
        steady_ms: Time of a later one.
        speedup: ``dense_ms / steady_ms``.
        macs_ratio: Multiply-adds of the dense model over those of a later frame.
        error: Norm of the difference of the last frame's features over the norm of the dense ones.
        state_mb: Memory that the stream takes, in MB.
        peak_mb: The most that the process held in the eventful model's first two frames, in MB,
            the dense model's weights included; None where the system does not tell.
        frames: How many were timed.
    """

    size: int
    mode: str
    k: int
    dense_ms: float
    first_ms: float
    steady_ms: float
    speedup: float
    macs_ratio: float
    error: float
    state_mb: float
    peak_mb: float | None
    frames: int


def build(size: int) -> nn.Module:
    """ViTDet-B with fixed random weights, relative positions included."""
    torch.manual_seed(0)
    return vitdet(img_size=size).eval().requires_grad_(False)


def measure(dense: nn.Module, frames: list[Tensor], size: int, mode: str, k: int) -> Result:
    """Time one eventful model in turn with the dense one; the last frame is counted."""
    eventful = sharing_weights(dense)
    handle = apply_eventful(eventful, TopK(k), attention=mode)
    *timed, counted = frames[1:]
    with peak_memory() as peak:
        start = time.perf_counter()
        eventful(frames[0])
        first = time.perf_counter() - start
        eventful(timed[0])
    steps = {"dense": iter(timed), "eventful": iter(timed[1:])}
    runs = {
        "dense": lambda: dense(next(steps["dense"])),
        "eventful": lambda: eventful(next(steps["eventful"])),
    }
    seconds = alternate(runs, len(timed) - 1, warmup=0)
    (features, macs), (expected, dense_macs) = count(eventful, counted), count(dense, counted)
    dense_seconds, steady = median(seconds["dense"]), median(seconds["eventful"])
    result = Result(
        size=size,
        mode=mode,
        k=k,
        dense_ms=1e3 * dense_seconds,
        first_ms=1e3 * first,
        steady_ms=1e3 * steady,
        speedup=dense_seconds / steady,
        macs_ratio=dense_macs / macs,
        error=float((features - expected).norm() / expected.norm()),
        state_mb=handle.memory_bytes / 1e6,
        peak_mb=peak[0] / 1e6 if peak else None,
        frames=len(timed) - 1,
    )
    handle.remove()
    return result


def count(model: nn.Module, frame: Tensor) -> tuple[Tensor, int]:
    """The features of a frame, and the multiply-adds that they took."""
    counter = MacsCounter(model)
    with counter:
        features = model(frame)[0]
    return features, counter.report().total


@contextmanager
def peak_memory() -> Iterator[list[int]]:
    """The largest resident size of the process inside, in bytes, put into the list at the end."""
    statm, peak, done = Path("/proc/self/statm"), [], Event()
    if not statm.exists():
        yield peak
        return

    def watch() -> None:
        most = 0
        while not done.wait(0.005):
            most = max(most, int(statm.read_text().split()[1]) * 4096)
        peak.append(most)

    gc.collect()
    thread = Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def plot(results: list[Result], path: str) -> None:
    """Speed-up of time over that of multiply-adds, a line for each size and mode."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4.5))
    lines: dict[tuple[int, str], list[Result]] = {}
    for row in results:
        lines.setdefault((row.size, row.mode), []).append(row)
    for (size, mode), rows in lines.items():
        rows.sort(key=lambda row: row.macs_ratio)
        axes.plot(
            [row.macs_ratio for row in rows],
            [row.speedup for row in rows],
            "o-",
            label=f"{size}, {mode}",
        )
    most = max(row.macs_ratio for row in results)
    axes.plot([1, most], [1, most], "k:", label="what multiply-adds allow")
    axes.set(xlabel="multiply-adds, dense / eventful", ylabel="time, dense / eventful")
    axes.legend()
    figure.savefig(path, dpi=120, bbox_inches="tight")


@one_sentence_errors
def main(argv: list[str] | None = None) -> None:
    """Measure, print the table and write the figures if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("video", help="a file; a fixed camera suits the method")
    parser.add_argument("--quick", action="store_true", help="672 pixels, k=256, three frames")
    parser.add_argument("--sizes", type=int, nargs="+", choices=list(BUDGETS), help="only these")
    parser.add_argument("--k", type=int, nargs="+", help="only these budgets, at every size")
    parser.add_argument(
        "--modes", nargs="+", default=["exact"], choices=["exact", "tokenwise", "delta"]
    )
    parser.add_argument("--frames", type=int, help="frames that are timed (default 5)")
    parser.add_argument("--json", metavar="FILE", help="write the figures to this file too")
    parser.add_argument("--plot", metavar="FILE", help="draw them")
    add_record_option(parser)
    args = parser.parse_args(argv)
    recording = Recording(args.record, __file__, argv)
    budgets = QUICK_BUDGETS if args.quick else BUDGETS
    count = args.frames or (3 if args.quick else 5)
    results = []
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}")
    print(
        "size mode        k  dense ms  first ms steady ms  speedup  allowed    error"
        "  state  peak MB"
    )
    with torch.inference_mode():
        for size in args.sizes or budgets:
            frames = first_frames(args.video, size, count + 3)
            dense = build(size)
            dense(frames[0])
            for mode in args.modes:
                for k in args.k or budgets[size]:
                    row = measure(dense, frames, size, mode, k)
                    results.append(row)
                    peak = "-" if row.peak_mb is None else f"{row.peak_mb:.0f}"
                    print(
                        f"{size:4d} {mode:<9}{k:5d}{row.dense_ms:10.0f}{row.first_ms:10.0f}"
                        f"{row.steady_ms:10.0f}{row.speedup:8.2f}x{row.macs_ratio:8.2f}x"
                        f"{row.error:9.1e}{row.state_mb:7.0f}{peak:>9}",
                        flush=True,
                    )
    recording.save([asdict(row) for row in results])
    if args.json:
        Path(args.json).write_text(json.dumps([asdict(row) for row in results], indent=2))
    if args.plot:
        plot(results, args.plot)


if __name__ == "__main__":
    main()
