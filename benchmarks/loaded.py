"""How the time of a frame grows while other processes keep the machine busy.

    python benchmarks/loaded.py VIDEO                      # three minutes on two cores
    python benchmarks/loaded.py VIDEO --busy 1 --models eventful m0
    python benchmarks/loaded.py VIDEO --record             # keep the rows in benchmarks/results

Each model runs alone and then beside ``--busy`` busy processes; with a fair share of the cores, it
would get cores / (cores + busy) of each. Then the same is measured in the same process with torch's
default waiting of threads (:mod:`mmvitaccel.core.kernels.openmp_wait` switched off). ``dense`` is
ViTDet-B at 672 pixels in torch, ``eventful`` the same with k=256.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import torch

from mmvitaccel import CompiledEfficientViT, TopK, apply_eventful, apply_tome
from mmvitaccel.core.kernels import openmp_wait
from mmvitaccel.errors import one_sentence_errors
from mmvitaccel.records.recording import Recording, add_record_option
from mmvitaccel.testing.models import efficientvit, sharing_weights, timm_model, vitdet
from mmvitaccel.video.first_frames import first_frames

SIZE, K, R = 672, 256, 13
MODELS = ("dense", "eventful", "tome", "m0", "m4")
Run = Callable[[], Any]


@dataclass(frozen=True)
class Row:
    """One model; times in milliseconds per call.

    Attributes:
        model: Name of the model.
        busy: Number of busy processes beside it.
        sleeps: Whether waiting threads may sleep, as this package sets it.
        idle_ms: Median time with nothing else running.
        busy_ms: Median time beside the busy processes.
        worst_ms: Longest time beside the busy processes.
        growth: ``busy_ms / idle_ms``.
        worst_growth: ``worst_ms / idle_ms``.
        calls: Number of calls timed beside the busy processes.
    """

    model: str
    busy: int
    sleeps: bool
    idle_ms: float
    busy_ms: float
    worst_ms: float
    growth: float
    worst_growth: float
    calls: int


def build(video: str, names: list[str]) -> dict[str, tuple[Run, int]]:
    """Build each model as a call, with the number of calls in a timing."""
    torch.manual_seed(0)
    image = torch.randn(1, 3, 224, 224)
    made: dict[str, tuple[Run, int]] = {}
    if {"dense", "eventful"} & set(names):
        frames = first_frames(video, SIZE, 24)
        dense = vitdet(img_size=SIZE).eval().requires_grad_(False)
        eventful = sharing_weights(dense)
        apply_eventful(eventful, TopK(K), attention="exact")
        shown, seen = cycle(frames), cycle(frames)
        made["dense"] = (lambda: dense(next(shown)), 8)
        made["eventful"] = (lambda: eventful(next(seen)), 20)
    if "tome" in names:
        tome = timm_model("deit_small_patch16_224").eval()
        apply_tome(tome, r=R)
        made["tome"] = (lambda: tome(image), 40)
    for arch in ("m0", "m4"):
        if arch in names:
            steps = CompiledEfficientViT(
                efficientvit(arch, out_indices=(2,), window_size=(7, 7, 4))
            )
            made[arch] = (lambda steps=steps: steps(image), 300)
    return {name: made[name] for name in names}


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Run processes that only compute, inside the block."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        time.sleep(1)
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def milliseconds(run: Run, calls: int) -> list[float]:
    """Milliseconds of each call."""
    taken = []
    for _ in range(calls):
        start = time.perf_counter()
        run()
        taken.append(1e3 * (time.perf_counter() - start))
    return taken


def measure(name: str, run: Run, calls: int, busy: int, sleeps: bool) -> Row:
    """Time one model alone and beside busy processes; threads spin at the beginning."""
    watch = openmp_wait.watch()
    if watch is not None:
        watch.wake()  # Threads may still be asleep from what ran before
    keep = mock.patch.object(openmp_wait.Watch, "look", openmp_wait.Watch.look if sleeps else _pass)
    with keep:
        milliseconds(run, max(2, calls // 4))
        idle = median(milliseconds(run, calls))
        with busy_processes(busy):
            taken = milliseconds(run, calls)
    return Row(
        model=name,
        busy=busy,
        sleeps=sleeps,
        idle_ms=idle,
        busy_ms=median(taken),
        worst_ms=max(taken),
        growth=median(taken) / idle,
        worst_growth=max(taken) / idle,
        calls=calls,
    )


def _pass(watch: openmp_wait.Watch) -> None:
    """Do nothing."""


@one_sentence_errors
def main(argv: list[str] | None = None) -> None:
    """Measure, print a table, and write the record if requested."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("video", help="a video file, best of a fixed camera")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument(
        "--busy", type=int, default=os.cpu_count(), help="busy processes; default: one per core"
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    add_record_option(parser)
    args = parser.parse_args(argv)
    recording = Recording(args.record, __file__, argv)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {args.busy} busy")
    print("model    waiting  idle ms   busy ms  worst ms  growth   worst")
    rows = []
    with torch.inference_mode():
        for name, (run, calls) in build(args.video, args.models).items():
            for sleeps in (False, True):
                rows.append(row := measure(name, run, calls, args.busy, sleeps))
                print(
                    f"{name:<9}{'sleeps' if sleeps else 'spins':<7}{row.idle_ms:9.2f}"
                    f"{row.busy_ms:10.2f}{row.worst_ms:10.2f}{row.growth:7.2f}x"
                    f"{row.worst_growth:7.2f}x",
                    flush=True,
                )
    recording.save([asdict(row) for row in rows])
    if args.json:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
