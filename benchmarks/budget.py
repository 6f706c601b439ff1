"""How a budget in milliseconds follows its target on a real clock, also beside other load.

    python benchmarks/budget.py VIDEO                   # under a minute on two cores
    python benchmarks/budget.py VIDEO --size 672 --busy 2
    python benchmarks/budget.py VIDEO --record          # keep the rows in benchmarks/results

An eventful ViTDet-B with random weights processes the video repeatedly, without cuts. The targets
are shares of the time of its dense frames in the same process: high, low, high again, and high once
more for each entry of ``--busy``, beside as many busy processes. "frames to follow" is the first
frame of a phase after which the median of three frames is at most 10 % above or 15 % below the
target. "overshoot" is how far that median went beyond the target, relative to the step.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor, nn

from mmvitaccel import Budget, TopK, apply_eventful
from mmvitaccel.errors import one_sentence_errors, refuse_below
from mmvitaccel.records.recording import Recording, add_record_option
from mmvitaccel.testing.models import sharing_weights, vitdet
from mmvitaccel.video.first_frames import first_frames

HIGH, LOW = 0.7, 0.4
CLIP = 24  # frames of the video, played forwards and backwards
OVER, UNDER = 1.1, 0.85


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Run processes that only compute, inside the block."""
    started = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)
    ]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def dense_ms(model: nn.Module, frames: Sequence[Tensor]) -> float:
    """Median milliseconds of the model without a method."""
    times = []
    for frame in frames:
        start = time.perf_counter()
        model(frame)
        times.append(1e3 * (time.perf_counter() - start))
    return median(times[1:])


def smooth(times: Sequence[float]) -> list[float]:
    """Medians of three successive frames."""
    return [median(times[max(n - 1, 0) : n + 2]) for n in range(len(times))]


def frames_to_follow(times: Sequence[float], target: float) -> int | None:
    """Number of frames before all later ones stay near the target; None if they never do."""
    held = [UNDER * target <= ms <= OVER * target for ms in smooth(times)]
    first = len(held) - next((n for n, ok in enumerate(reversed(held)) if not ok), len(held))
    return first if first < len(held) else None


def overshoot(times: Sequence[float], before: float, target: float) -> float:
    """How far frames went beyond the target, relative to the step from the previous target."""
    step = target - before
    beyond = max((ms - target) * (1 if step > 0 else -1) for ms in smooth(times))
    return max(beyond, 0.0) / abs(step)


def play(budget: Budget, model: nn.Module, frames: Iterator[Tensor], count: int) -> list[float]:
    """Milliseconds of the next frames."""
    times = []
    for _ in range(count):
        with budget.frame() as record:
            model(next(frames))
        times.append(record.milliseconds)
    return times


def measure(size: int, video: str, count: int, processes: int) -> list[dict[str, Any]]:
    """Measure each phase; returns a row for each."""
    torch.manual_seed(0)
    dense = vitdet(img_size=size).eval().requires_grad_(False)
    clip = first_frames(video, size, CLIP)
    whole = dense_ms(dense, clip[:5])
    model = sharing_weights(dense)
    tokens = (size // 16) ** 2
    handle = apply_eventful(model, TopK(tokens // 2))
    budget = Budget(handle, milliseconds=HIGH * whole, k=(max(tokens // 64, 1), tokens))
    frames = cycle([*clip, *clip[-2:0:-1]])
    play(budget, model, frames, 5)
    rows, before = [], None
    phases = (("start", HIGH, 0), ("step down", LOW, 0), ("step up", HIGH, 0))
    for phase, share, load in (*phases, ("load", HIGH, processes)):
        target = share * whole
        budget.set_target(milliseconds=target)
        with busy(load):
            times = play(budget, model, frames, count)
        steady = times[count // 2 :]
        rows.append(
            dict(
                phase=phase,
                size=size,
                busy=load,
                frames=count,
                dense_ms=whole,
                target_ms=target,
                median_ms=median(steady),
                p90_ms=quantiles(steady, n=10, method="inclusive")[-1],
                follows_after=frames_to_follow(times, target),
                overshoot=None
                if before in (None, share)
                else overshoot(times, before * whole, target),
                k=budget.k,
                missed=budget.missed is not None,
            )
        )
        show(rows[-1])
        before = share
    return rows


def show(row: dict[str, Any]) -> None:
    """Print a phase."""
    over = "-" if row["overshoot"] is None else f"{row['overshoot']:.0%}"
    after = "-" if row["follows_after"] is None else row["follows_after"]
    print(
        f"{row['phase']:>9}  target {row['target_ms']:7.1f}  median {row['median_ms']:7.1f}  "
        f"p90 {row['p90_ms']:7.1f} ms  frames to follow {after}  overshoot {over}  k {row['k']}"
        f"{'  missed' if row['missed'] else ''}",
        flush=True,
    )


@one_sentence_errors
@torch.no_grad()
def main(argv: Sequence[str] | None = None) -> None:
    """Play the video with changing targets."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("video")
    parser.add_argument("--size", type=int, default=320, help="side of the frames (default: 320)")
    parser.add_argument("--frames", type=int, default=40, help="frames in each phase (default: 40)")
    parser.add_argument("--busy", type=int, default=1, help="busy processes (default: 1)")
    add_record_option(parser)
    args = parser.parse_args(argv)
    refuse_below(args, 4, "frames")
    recording = Recording(args.record, __file__, argv)
    recording.save(measure(args.size, args.video, args.frames, args.busy))


if __name__ == "__main__":
    main()
