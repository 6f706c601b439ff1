"""EfficientViT deployed: as by its authors, timm's compiled, in OpenVINO, and by this project.

    python benchmarks/efficientvit.py                   # M0 to M5 and the detector, half an hour
    python benchmarks/efficientvit.py --quick           # M0 at batch 1, nothing compiled
    python benchmarks/efficientvit.py --models m4 --batch 1 16
    python benchmarks/efficientvit.py --json out.json
    python benchmarks/efficientvit.py --record          # keep the rows in benchmarks/results

In all models, every BatchNorm is folded. The authors trace their model with ``torch.jit.trace``.
Here, this project's plain implementation is traced, and also traced and frozen, which looks up the
attention biases once, as the authors' model does; the baseline is the faster of the two. All ways
run alternately in one process; times are medians. Before a way is timed, its output is compared
with that of the eager model: the error is the largest difference relative to the largest value.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from mmvitaccel.analysis.timing import alternate
from mmvitaccel.core.macs.counter import count_macs
from mmvitaccel.deploy.onnx_export import (
    export_module,
    open_session,
    relative_error,
    run_session,
)
from mmvitaccel.errors import UserError, one_sentence_errors
from mmvitaccel.models.efficientvit.arch import ARCHS
from mmvitaccel.models.efficientvit.backbone import EfficientViT
from mmvitaccel.models.efficientvit.compiled import CompiledEfficientViT
from mmvitaccel.models.efficientvit.tokens import switch_to_tokens
from mmvitaccel.records.recording import Recording, add_record_option
from mmvitaccel.testing.baselines import (
    compiled,
    openvino,
    timm_efficientvit,
    traced,
    traced_and_frozen,
)
from mmvitaccel.testing.models import detector_heads, efficientvit

CONFIG = Path(__file__).parents[1] / "configs" / "retinanet_efficientvit_m4_coco.py"
DETECTOR = "retinanet"
DETECTOR_SIZE = (800, 1344)  # 800 x 1333, padded to a multiple of 32 by the data preprocessor
TOLERANCE = 1e-3
HALF_TOLERANCE = 0.1
"""Of a baseline in bfloat16, which has 8 bits: it may differ, but must be the same model."""
SETTLING = 0.15
"""Seconds of a way before it is timed: until then threads of the library before wait actively."""
BURST = 0.1
"""Seconds that one timing lasts at least."""

BASELINES = ("authors", "timm", "openvino", "openvino_bfloat16")

Run = Callable[[], Any]
Build = Callable[[nn.Module, Tensor], Run]


def channels_last(model: nn.Module) -> nn.Module:
    """Copy a model to the channels-last memory format."""
    return copy.deepcopy(model).to(memory_format=torch.channels_last)


def tokens(model: nn.Module) -> nn.Module:
    """Copy a model, with its attention in the form for deployment."""
    return switch_to_tokens(copy.deepcopy(model))


def in_steps(model: nn.Module) -> nn.Module:
    """Copy a model, with its backbone as compiled steps."""
    if isinstance(model, EfficientViT):
        return CompiledEfficientViT(model)
    model = copy.deepcopy(model)
    model.detector.backbone = CompiledEfficientViT(model.detector.backbone)
    return model


def by_channel(x: Tensor) -> Tensor:
    """Convert images (B, C, H, W) to the channels-last memory format."""
    return x.contiguous(memory_format=torch.channels_last)


def calling(function: Callable[[Tensor], Any], x: Tensor) -> Run:
    """Return a call of the function on the input."""
    return lambda: function(x)


def compiled_ahead(model: nn.Module, x: Tensor) -> Run:
    """Compile the model with AOTInductor and frozen weights; it runs without Python."""
    with tempfile.TemporaryDirectory() as folder:
        path = torch._inductor.aoti_compile_and_package(
            torch.export.export(model, (x,)),
            package_path=f"{folder}/model.pt2",
            inductor_configs={"freezing": True},
        )
        return calling(torch._inductor.aoti_load_package(path), x)


def onnx_runtime(model: nn.Module, x: Tensor) -> Run:
    """Export the model to ONNX for this input size and open it in ONNX Runtime."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_module(model, (len(x), *x.shape[2:]), path, dynamic=False)
        session = open_session(path)
    return lambda: run_session(session, x)


@dataclass(frozen=True)
class Way:
    """A way to run a model.

    Attributes:
        build: Makes the call.
        baseline: The group in ``BASELINES``; None for this project's ways.
        compiles: Whether building takes long, because the model is compiled.
        tolerance: Largest permitted error.
    """

    build: Build
    baseline: str | None = None
    compiles: bool = False
    tolerance: float = TOLERANCE


WAYS = {
    "traced": Way(lambda m, x: calling(traced(m, x), x), "authors"),
    "traced, frozen": Way(lambda m, x: calling(traced_and_frozen(m, x), x), "authors"),
    "timm, compiled": Way(lambda m, x: calling(compiled(m, x), x), "timm", True),
    "OpenVINO": Way(lambda m, x: calling(openvino(m, x), x), "openvino"),
    "OpenVINO bfloat16": Way(
        lambda m, x: calling(openvino(m, x, "bf16"), x),
        "openvino_bfloat16",
        tolerance=HALF_TOLERANCE,
    ),
    "eager": Way(calling),
    "channels-last": Way(lambda m, x: calling(channels_last(m), by_channel(x))),
    "tokens": Way(lambda m, x: calling(tokens(m), by_channel(x))),
    "compiled steps": Way(lambda m, x: calling(in_steps(m), x)),
    "traced, optimised": Way(
        lambda m, x: calling(traced(m, x, torch.jit.optimize_for_inference), x)
    ),
    "compiled": Way(lambda m, x: calling(compiled(m, x), x), None, True),
    "compiled, frozen": Way(lambda m, x: calling(compiled(m, x, freezing=True), x), None, True),
    "tokens, compiled, frozen": Way(
        lambda m, x: calling(compiled(tokens(m), by_channel(x), freezing=True), by_channel(x)),
        None,
        True,
    ),
    "compiled ahead, frozen": Way(compiled_ahead, None, True),
    "tokens, compiled ahead, frozen": Way(
        lambda m, x: compiled_ahead(tokens(m), by_channel(x)), None, True
    ),
    "ONNX Runtime": Way(onnx_runtime),
    "tokens, ONNX Runtime": Way(lambda m, x: onnx_runtime(tokens(m), x)),
}


@dataclass(frozen=True)
class Row:
    """One way to run one model.

    Attributes:
        model: ``m0`` to ``m5``, or the detector.
        batch: Images in a batch.
        way: Name of the way.
        seconds: Median time of a batch; None if the way is not available.
        error: Largest difference to the eager model over the largest value; None if there is no
            eager model with the same weights.
        reason: Why the way is not available.
    """

    model: str
    batch: int
    way: str
    seconds: float | None = None
    error: float | None = None
    reason: str = ""


def build_model(name: str) -> nn.Module:
    """Build a folded model with random weights: a backbone for ImageNet, or the detector."""
    torch.manual_seed(0)
    if name == DETECTOR:
        return detector_heads(CONFIG)
    return efficientvit(name, out_indices=(2,), window_size=(7, 7, 4))


def measure(name: str, model: nn.Module, x: Tensor, ways: Sequence[str], rounds: int) -> list[Row]:
    """Build, compare and time the ways to run one model."""
    batch, expected = len(x), model(x)
    rows, runs = [], {}
    for way in ways:
        theirs = WAYS[way].baseline == "timm"
        if theirs and name == DETECTOR:
            rows.append(Row(name, batch, way, reason="timm has no detector"))
            continue
        try:
            run = WAYS[way].build(timm_efficientvit(name) if theirs else model, x)
            given = run()
        except Exception as error:
            # Missing compilers and packages fail in many ways, which are all shown
            message = next(iter(str(error).strip().splitlines()), "")
            rows.append(Row(name, batch, way, reason=f"{type(error).__name__}: {message}"))
            continue
        error = None if theirs else max(relative_error(a, b) for a, b in zip(given, expected))
        if error is not None and error > WAYS[way].tolerance:
            raise UserError(f"{name}, batch {batch}, {way}: its output is off by {error:.1e}.")
        rows.append(Row(name, batch, way, error=error))
        runs[way] = run
    seconds = time_in_turn(runs, rounds)
    return [
        Row(**(asdict(row) | dict(seconds=seconds[row.way]))) if row.way in seconds else row
        for row in rows
    ]


def time_in_turn(runs: dict[str, Run], rounds: int) -> dict[str, float]:
    """Median seconds of each call, run alternately; short ones are repeated within a timing."""
    seconds: dict[str, list[float]] = {way: [] for way in runs}
    for _ in range(rounds):
        for way, run in runs.items():
            repeat(run, SETTLING)
            count, took = repeat(run, BURST)
            seconds[way].append(took / count)
    return {way: median(times) for way, times in seconds.items()}


def repeat(run: Run, at_least: float) -> tuple[int, float]:
    """Call for at least some seconds; returns the number of calls and the seconds."""
    start, count = time.perf_counter(), 0
    while True:
        run()
        count += 1
        took = time.perf_counter() - start
        if took >= at_least:
            return count, took


def product_rate(side: int = 1024) -> float:
    """Multiply-adds per second in products of large square matrices, an upper bound."""
    a, b = torch.randn(2, side, side)
    return side**3 / min(alternate({"product": lambda: a @ b}, 20)["product"])


def baseline(rows: list[Row], whose: str) -> Row | None:
    """Return the fastest way of one baseline."""
    timed = [row for row in rows if row.seconds and WAYS[row.way].baseline == whose]
    return min(timed, key=lambda row: row.seconds, default=None)


def table(rows: list[Row]) -> str:
    """Format the rows of one model and batch as Markdown, and name this project's best way."""
    lines = [
        "| model | batch | way | ms | images/s | authors / this | timm / this | OpenVINO / this "
        "| OpenVINO bfloat16 / this | error |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    references = [baseline(rows, whose) for whose in BASELINES]
    for row in rows:
        start = f"| {row.model} | {row.batch} | {row.way} |"
        if row.seconds is None:
            lines.append(f"{start} not available: {row.reason} | | | | | | |")
            continue
        ratios = (f"{ref.seconds / row.seconds:.2f}x" if ref else "" for ref in references)
        error = "" if row.error is None else f"{row.error:.0e}"
        lines.append(
            f"{start} {1e3 * row.seconds:.2f} | {row.batch / row.seconds:.1f} | "
            f"{' | '.join(ratios)} | {error} |"
        )
    return "\n".join(lines)


def best_own(rows: list[Row]) -> Row | None:
    """Return the fastest of this project's ways."""
    own = [row for row in rows if row.seconds and WAYS[row.way].baseline is None]
    return min(own, key=lambda row: row.seconds, default=None)


def figures(rows: list[Row], macs: int, rate: float) -> list[dict[str, Any]]:
    """Make the recorded rows of one model and batch, with ratios.

    Args:
        rows: Rows of one model and batch.
        macs: Multiply-adds of the batch.
        rate: Multiply-adds per second of large products.
    """
    best, found = best_own(rows), []
    half = baseline(rows, "openvino_bfloat16")
    for row in rows:
        ratios = {
            f"{whose}_over_this": ref.seconds / row.seconds if ref and row.seconds else None
            for whose in BASELINES
            for ref in [baseline(rows, whose)]
        }
        costs = dict(gmacs=macs / 1e9, least_seconds=macs / rate)
        costs["openvino_bfloat16_error"] = half.error if half else None
        found.append(asdict(row) | ratios | costs | dict(best=row is best))
    return found


def summary(rows: list[Row]) -> str:
    """Compare this project's best way with the baselines, in a sentence."""
    best = best_own(rows)
    if best is None:
        return "no way of this project's could be timed"
    against = [
        f"{ref.seconds / best.seconds:.2f}x {ref.way} ({whose})"
        for whose in BASELINES
        if (ref := baseline(rows, whose))
    ]
    return f"{best.model}, batch {best.batch}: best is {best.way}, {', '.join(against)}"


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [*ARCHS, DETECTOR]
    parser.add_argument("--quick", action="store_true", help="M0 at batch 1, nothing compiled")
    parser.add_argument("--models", nargs="+", choices=names, default=names)
    parser.add_argument(
        "--batch",
        type=int,
        nargs="+",
        default=[1, 16],
        help="batch sizes of backbones; the detector's is 1",
    )
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--rounds", type=int, default=11, help="timings of each way")
    parser.add_argument("--threads", type=int, help="torch threads; default: torch's")
    parser.add_argument("--json", type=Path, metavar="FILE")
    add_record_option(parser)
    return parser.parse_args(argv)


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and print a table and the best way for each model and batch."""
    args = parse_args(argv)
    recording = Recording(args.record, __file__, argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.quick:
        args.models, args.batch, args.rounds = ["m0"], [1], 3
        args.ways = [way for way in args.ways if not WAYS[way].compiles]
    # Each way of each model is compiled separately, more often than torch expects
    torch._dynamo.config.cache_size_limit = 256
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}")
    rate = product_rate()
    print(f"products of 1024 x 1024: {rate / 1e9:.1f} G multiply-adds a second")
    rows: list[Row] = []
    recorded: list[dict[str, Any]] = []
    for name in args.models:
        model = build_model(name)
        for batch in [1] if name == DETECTOR else args.batch:
            x = torch.randn(batch, 3, *(DETECTOR_SIZE if name == DETECTOR else (224, 224)))
            with torch.no_grad():
                part = measure(name, model, x, args.ways, args.rounds)
                macs = count_macs(model, x).total
            rows += part
            recorded += figures(part, macs, rate)
            print(f"\n{table(part)}\n\n{summary(part)}")
            least = 1e3 * macs / rate
            print(f"{macs / 1e9:.2f} G multiply-adds, {least:.2f} ms at that rate", flush=True)
    recording.save(recorded)
    if args.json:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
