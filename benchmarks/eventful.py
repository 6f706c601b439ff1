"""Time of an eventful ViTDet-B against the dense model, on a real video.

    python benchmarks/eventful.py VIDEO                      # the paper's sizes, some 15 minutes
    python benchmarks/eventful.py VIDEO --quick              # one size, under a minute
    python benchmarks/eventful.py VIDEO --sizes 1024 --k 512 256 --modes exact tokenwise
    python benchmarks/eventful.py VIDEO --json out.json --plot out.png
    python benchmarks/eventful.py VIDEO --record             # keep the rows in benchmarks/results

Weights are random and fixed, frames are successive frames of the video, and all models share
weights and frames. Each eventful model alternates in one process with the dense one, in torch
(fused attention, relative positions) and, if installed, in OpenVINO. Times are medians over the
frames after the first, and "dense" is the faster of the two. The table also has the ratio of
multiply-adds, which skipping would reach if nothing else took time, and the error with the same
number of random tokens. Only the backbone is measured; frames are prepared in advance. ``--dtype
bfloat16`` applies to both models.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import median
from threading import Event, Thread

import torch
from torch import Tensor, nn

from mmvitaccel import RandomTokens, TopK, apply_eventful
from mmvitaccel.analysis.timing import alternate
from mmvitaccel.core.macs.counter import MacsCounter
from mmvitaccel.errors import UserError, one_sentence_errors
from mmvitaccel.records.recording import Recording, add_record_option
from mmvitaccel.testing.baselines import openvino
from mmvitaccel.testing.models import sharing_weights, vitdet
from mmvitaccel.video.first_frames import first_frames

# Tokens that pass, by size of the image: those of the paper's tables, and all tokens.
BUDGETS = {1024: (256, 512, 1024, 2048, 4096), 672: (128, 256, 512, 1764)}
QUICK_BUDGETS = {672: (256,)}


@dataclass(frozen=True)
class Result:
    """One row of the table. Times are medians in milliseconds per frame, except ``first_ms``.

    Attributes:
        size: Side of the frames in pixels.
        mode: Attention mode.
        k: Tokens that pass each gate.
        dtype: Data type of weights and frames, for both models.
        buffers: Data type of the stream's buffers; ``own`` for that of the tensors.
        torch_ms: Time of the dense model in torch.
        openvino_ms: Time of the dense model in OpenVINO, in the same precision; None if it cannot
            run.
        dense_ms: The smaller of the two.
        first_ms: Time of the eventful model's first frame.
        steady_ms: Time of a later frame.
        speedup: ``dense_ms / steady_ms``.
        macs_ratio: Multiply-adds of the dense model over those of a later frame.
        error: Norm of the difference of the last frame's features over the norm of the dense
            float32 features.
        dense_error: The same for the dense model in torch: 0 in float32.
        random_error: The same for an eventful model in which k random tokens pass.
        state_mb: Memory of the stream in MB.
        peak_mb: Peak memory of the process during the eventful model's first two frames in MB,
            including the dense model's weights; None if the system does not report it.
        frames: Number of timed frames.
    """

    size: int
    mode: str
    k: int
    dtype: str
    buffers: str
    torch_ms: float
    openvino_ms: float | None
    dense_ms: float
    first_ms: float
    steady_ms: float
    speedup: float
    macs_ratio: float
    error: float
    dense_error: float
    random_error: float
    state_mb: float
    peak_mb: float | None
    frames: int


def build(size: int) -> nn.Module:
    """Build ViTDet-B with fixed random weights, including relative positions."""
    torch.manual_seed(0)
    return vitdet(img_size=size).eval().requires_grad_(False)


@dataclass(frozen=True)
class Dense:
    """The dense model in all ways in which it runs, and its output.

    Attributes:
        model: The model in torch, in the measured precision.
        openvino: The same in OpenVINO; None if it is missing or cannot run.
        expected: Features of the last frame in float32, (1, C, H, W).
        macs: Multiply-adds of a frame.
        error: Error of the model's features relative to ``expected``.
    """

    model: nn.Module
    openvino: Callable[[Tensor], list[Tensor]] | None
    expected: Tensor
    macs: int
    error: float


def dense_ways(size: int, frames: list[Tensor], dtype: torch.dtype) -> Dense:
    """Build ViTDet-B for one frame size, and run it on the last frame (1, 3, size, size)."""
    model = build(size)
    expected, macs = count(model, frames[-1])
    network = None
    try:
        network = openvino(model, frames[0], {torch.float32: "f32"}.get(dtype, "bf16"))
    except UserError as error:
        print(f"without OpenVINO: {error}", flush=True)
    model = model.to(dtype)
    features = model(frames[-1].to(dtype))[0].float()
    return Dense(model, network, expected, macs, relative_error(features, expected))


def relative_error(given: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of the expected tensor."""
    return float((given - expected).norm() / expected.norm())


def measure(
    dense: Dense, frames: list[Tensor], size: int, mode: str, k: int, buffers: str
) -> Result:
    """Time one eventful model alternately with the dense ones; the last frame is counted."""
    eventful = sharing_weights(dense.model)
    options = dict(attention=mode, buffer_dtype=None if buffers == "own" else buffers)
    handle = apply_eventful(eventful, TopK(k), **options)
    dtype = next(eventful.parameters()).dtype
    given = [frame.to(dtype) for frame in frames]
    *timed, counted = given[1:]
    with peak_memory() as peak:
        start = time.perf_counter()
        eventful(given[0])
        first = time.perf_counter() - start
        eventful(timed[0])
    steps = {way: iter(timed) for way in ("torch", "eventful")} | {"openvino": iter(frames[1:])}
    next(steps["eventful"])
    runs = {
        "torch": lambda: dense.model(next(steps["torch"])),
        "eventful": lambda: eventful(next(steps["eventful"])),
    }
    if dense.openvino is not None:
        dense.openvino(frames[0])
        runs["openvino"] = lambda: dense.openvino(next(steps["openvino"]))
    seconds = {
        way: median(times) for way, times in alternate(runs, len(timed) - 1, warmup=0).items()
    }
    features, macs = count(eventful, counted)
    fastest = min(seconds["torch"], seconds.get("openvino", math.inf))
    result = Result(
        size=size,
        mode=mode,
        k=k,
        dtype=str(dtype).removeprefix("torch."),
        buffers=buffers,
        torch_ms=1e3 * seconds["torch"],
        openvino_ms=1e3 * seconds["openvino"] if "openvino" in seconds else None,
        dense_ms=1e3 * fastest,
        first_ms=1e3 * first,
        steady_ms=1e3 * seconds["eventful"],
        speedup=fastest / seconds["eventful"],
        macs_ratio=dense.macs / macs,
        error=relative_error(features.float(), dense.expected),
        dense_error=dense.error,
        random_error=error_of_random_tokens(dense, given, k, options),
        state_mb=handle.memory_bytes / 1e6,
        peak_mb=peak[0] / 1e6 if peak else None,
        frames=len(timed) - 1,
    )
    handle.remove()
    return result


def error_of_random_tokens(
    dense: Dense, frames: list[Tensor], k: int, options: dict[str, str | None]
) -> float:
    """Error of the last frame if k random tokens pass every gate."""
    eventful = sharing_weights(dense.model)
    handle = apply_eventful(eventful, RandomTokens(k), **options)
    torch.manual_seed(0)
    for frame in frames:
        (features,) = eventful(frame)
    handle.remove()
    return relative_error(features.float(), dense.expected)


def count(model: nn.Module, frame: Tensor) -> tuple[Tensor, int]:
    """Return the features of a frame and their multiply-adds."""
    counter = MacsCounter(model)
    with counter:
        features = model(frame)[0]
    return features, counter.report().total


@contextmanager
def peak_memory() -> Iterator[list[int]]:
    """Append the largest resident size of the process inside the block, in bytes, to the list."""
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
    """Plot the ratio of times against that of multiply-adds, with a line for each size and mode."""
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


def line(row: Result) -> str:
    """Format a row."""
    network = "-" if row.openvino_ms is None else f"{row.openvino_ms:.0f}"
    peak = "-" if row.peak_mb is None else f"{row.peak_mb:.0f}"
    return (
        f"{row.size:4d} {row.mode:<9}{row.k:5d} {row.buffers:<8}{row.torch_ms:10.0f}{network:>10}"
        f"{row.first_ms:10.0f}{row.steady_ms:10.0f}{row.speedup:8.2f}x{row.macs_ratio:8.2f}x"
        f"{row.error:9.1e}{row.random_error:9.1e}{row.state_mb:7.0f}{peak:>9}"
    )


@one_sentence_errors
def main(argv: list[str] | None = None) -> None:
    """Measure, print the table, and write the rows if requested."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("video", help="a video file, best of a fixed camera")
    parser.add_argument("--quick", action="store_true", help="672 pixels, k=256, three frames")
    parser.add_argument("--sizes", type=int, nargs="+", choices=list(BUDGETS), help="only these")
    parser.add_argument("--k", type=int, nargs="+", help="only these budgets, at every size")
    parser.add_argument(
        "--modes", nargs="+", default=["exact"], choices=["exact", "tokenwise", "delta"]
    )
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument(
        "--buffers", nargs="+", default=["own"], choices=["own", "bfloat16", "float16"]
    )
    parser.add_argument("--frames", type=int, help="timed frames (default: 5)")
    parser.add_argument("--json", metavar="FILE", help="also write the rows to this file")
    parser.add_argument("--plot", metavar="FILE", help="plot the rows")
    add_record_option(parser)
    args = parser.parse_args(argv)
    recording = Recording(args.record, __file__, argv)
    budgets = QUICK_BUDGETS if args.quick else BUDGETS
    count = args.frames or (3 if args.quick else 5)
    results = []
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}")
    print(
        "size mode        k buffers   torch ms  openvino  first ms steady ms  speedup  allowed"
        "    error   random  state  peak MB"
    )
    with torch.inference_mode():
        for size in args.sizes or budgets:
            frames = first_frames(args.video, size, count + 3)
            dense = dense_ways(size, frames, getattr(torch, args.dtype))
            for mode in args.modes:
                for k, buffers in product(args.k or budgets[size], args.buffers):
                    results.append(row := measure(dense, frames, size, mode, k, buffers))
                    print(line(row), flush=True)
    recording.save([asdict(row) for row in results])
    if args.json:
        Path(args.json).write_text(json.dumps([asdict(row) for row in results], indent=2))
    if args.plot:
        plot(results, args.plot)


if __name__ == "__main__":
    main()
