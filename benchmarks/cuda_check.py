"""Tests and short timings on a CUDA GPU, in one table and under nine minutes.

    make cuda-check                                        # in .venv, or PYTHON=... make cuda-check
    python benchmarks/cuda_check.py --json out.json
    python benchmarks/cuda_check.py --device cpu --quick   # that everything runs

The tests of core, adapters and hooks run in a separate process, with the GPU as torch's default
device (``MMVITACCEL_TEST_DEVICE``). Then each method alternates with the dense model in float32, in
bfloat16 and under ``torch.compile``. If one cannot run, the table has the reason. Times are medians
with the device synchronised. The error is the norm of the difference to the dense float32 output,
relative to the norm of that output.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from mmvitaccel import TopK, apply_eventful, apply_tome
from mmvitaccel.analysis.timing import alternate
from mmvitaccel.errors import UserError, one_sentence_errors
from mmvitaccel.testing.models import efficientvit, sharing_weights, timm_model, vitdet

ROOT = Path(__file__).parents[1]
TESTS = ("tests/core", "tests/adapters", "tests/hooks")
#: Tests of the CPU kernels.
NOT_HERE = ("tests/core/kernels",)
LIMIT = 300
WAYS = ("float32", "bfloat16", "compiled")


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        what: The tests, or a model.
        way: float32, bfloat16 or compiled (float32 under ``torch.compile``).
        result: Output of the tests, or the reason why there is no time.
        dense_ms: Time of the dense model, computed in the same way.
        method_ms: Time with the method.
        error: Relative error of the output with the method.
    """

    what: str
    way: str = ""
    result: str = ""
    dense_ms: float | None = None
    method_ms: float | None = None
    error: float | None = None

    def __str__(self) -> str:
        start = f"{self.what:<28}{self.way:<10}"
        if self.dense_ms is None:
            return start + self.result
        ratio = self.dense_ms / self.method_ms
        return f"{start}{self.dense_ms:9.2f}{self.method_ms:9.2f}{ratio:8.2f}x{self.error:10.1e}"


@dataclass(frozen=True)
class Case:
    """A model and a method.

    Attributes:
        build: Builds the model.
        put_on: Attaches the method to a copy, or returns another model with the same weights.
        shape: Shape of an input.
    """

    build: Callable[[], nn.Module]
    put_on: Callable[[nn.Module], nn.Module]
    shape: tuple[int, ...]


def eventful(k: int) -> Callable[[nn.Module], nn.Module]:
    """Attach Eventful with k tokens."""

    def put_on(model: nn.Module) -> nn.Module:
        apply_eventful(model, TopK(k))
        return model

    return put_on


def merging(r: int) -> Callable[[nn.Module], nn.Module]:
    """Attach ToMe with r tokens per block."""

    def put_on(model: nn.Module) -> nn.Module:
        apply_tome(model, r=r)
        return model

    return put_on


CASES = {
    "ViTDet-B 672, k=256": Case(lambda: vitdet(img_size=672), eventful(256), (1, 3, 672, 672)),
    "ViT-B/16, batch 8, r=13": Case(
        lambda: timm_model("vit_base_patch16_224"), merging(13), (8, 3, 224, 224)
    ),
    "EfficientViT M4, batch 16": Case(
        lambda: efficientvit("m4", out_indices=(2,), window_size=(7, 7, 4)),
        lambda model: model.to(memory_format=torch.channels_last),
        (16, 3, 224, 224),
    ),
}
_SMALL = dict(embed_dim=32, depth=2, num_heads=2, window_size=2, window_block_indexes=(0,))
QUICK = {
    "small ViTDet, k=8": Case(
        lambda: vitdet(img_size=128, **_SMALL), eventful(8), (1, 3, 128, 128)
    ),
    "small ViT, r=1": Case(
        lambda: timm_model("vit_tiny_patch16_224", img_size=64, depth=2), merging(1), (1, 3, 64, 64)
    ),
}


def run_tests(device: str, tests: tuple[str, ...], limit: int) -> Row:
    """Run the tests on the device, in a separate process."""
    if importlib.util.find_spec("pytest") is None:
        return Row("tests", result="not run: pytest is not installed")
    workers = ["-n", str(min(4, os.cpu_count() or 1))] if importlib.util.find_spec("xdist") else []
    ignored = [f"--ignore={folder}" for folder in NOT_HERE]
    command = [sys.executable, "-m", "pytest", "--tb=line", *workers, *ignored, *tests]
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | {"MMVITACCEL_TEST_DEVICE": device},
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Row("tests", result=f"not finished in {limit} s")
    lines = (done.stdout + done.stderr).strip().splitlines()
    for line in lines:
        if line.startswith(("FAILED", "ERROR")):
            print(line)
    return Row("tests", result=lines[-1].strip("= ") if lines else f"status {done.returncode}")


def measure(name: str, case: Case, way: str, device: torch.device, rounds: int) -> Row:
    """Time one model dense and with its method, computed in one way."""
    torch.manual_seed(0)
    dense = case.build().eval().requires_grad_(False).to(device)
    images = [torch.randn(case.shape, device=device) for _ in range(2)]
    with torch.no_grad():
        expected = _features(dense(images[0]))
        method = case.put_on(sharing_weights(dense))
        if way == "bfloat16":
            dense, method = dense.bfloat16(), method.bfloat16()
            images = [image.bfloat16() for image in images]
        runs = {"dense": dense, "method": method}
        if way == "compiled":
            runs = {each: torch.compile(model) for each, model in runs.items()}

        def timed(model: Callable[[Tensor], object]) -> Callable[[], None]:
            def run() -> None:
                model(images[0])
                if device.type == "cuda":
                    torch.cuda.synchronize(device)

            return run

        try:
            for model in runs.values():
                model(images[1])
            seconds = alternate({each: timed(model) for each, model in runs.items()}, rounds)
            given = _features(runs["method"](images[0]))
        except Exception as error:
            # A failure on a device is a result, and the others still have to run
            message = next(iter(str(error).strip().splitlines()), "")
            return Row(name, way, f"{type(error).__name__}: {message}")
    times = {each: 1e3 * median(taken) for each, taken in seconds.items()}
    error = float((given - expected).norm() / expected.norm())
    return Row(name, way, "", times["dense"], times["method"], error)


def _features(out: Tensor | tuple[Tensor, ...]) -> Tensor:
    return (out if isinstance(out, Tensor) else out[-1]).float()


@one_sentence_errors
def main(argv: list[str] | None = None) -> None:
    """Run the tests and the timings, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--device", default="cuda", help="device; another one only shows that everything runs"
    )
    parser.add_argument("--quick", action="store_true", help="small models, one test file")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args(argv)
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(
            f"There is no CUDA GPU that torch {torch.__version__} can use: nothing was checked."
        )
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    print(f"torch {torch.__version__}, {where}", flush=True)
    tests = ("tests/core/tome/test_merge.py",) if args.quick else TESTS
    rows = [run_tests(args.device, tests, LIMIT)]
    for name, case in (QUICK if args.quick else CASES).items():
        rows += [measure(name, case, way, device, 2 if args.quick else 10) for way in WAYS]
    print(f"{'':<28}{'':<10}{'dense ms':>9}{'ms':>9}{'ratio':>9}{'error':>10}")
    print("\n".join(map(str, rows)))
    if args.json:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
