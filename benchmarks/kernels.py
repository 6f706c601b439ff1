"""Time of the prebuilt kernels of a wheel against kernels compiled for this processor.

    python benchmarks/kernels.py                    # some two minutes
    python benchmarks/kernels.py --quick            # small: that everything runs
    python benchmarks/kernels.py --set x86-64-v3    # for another instruction set than the best one
    python benchmarks/kernels.py --record           # keep the rows in benchmarks/results

Both run alternately in one process, with the shapes of ViTDet-B at 672 pixels and k=256, plain and
with merged tokens, and with EfficientViT M4's steps; times are medians. The prebuilt kernels are
those that `make wheel` puts into a wheel: the same compiler with the same flags.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from unittest import mock

import torch

from mmvitaccel import CompiledEfficientViT
from mmvitaccel.analysis.timing import alternate
from mmvitaccel.core.kernels import operators
from mmvitaccel.core.kernels.attend import attend, attend_merged, attend_windows
from mmvitaccel.core.kernels.errors import normed_errors
from mmvitaccel.core.kernels.exchange import exchange_keys
from mmvitaccel.core.kernels.library.choice import Choice, find
from mmvitaccel.core.kernels.library.instruction_sets import INSTRUCTION_SETS
from mmvitaccel.core.kernels.merge import match_tokens, merge_tokens
from mmvitaccel.errors import UserError, one_sentence_errors
from mmvitaccel.records.recording import Recording, add_record_option
from mmvitaccel.testing.models import efficientvit

DIM, SCALE = 64, 0.125


@dataclass(frozen=True)
class Row:
    """One kernel. Times are medians.

    Attributes:
        kernel: Name of the kernel.
        instructions: Instruction set of the prebuilt kernel.
        ahead_ms: Time of the prebuilt kernel.
        here_ms: Time of the kernel compiled for this processor.
        ratio: ``ahead_ms / here_ms``.
        rounds: Number of timings.
    """

    kernel: str
    instructions: str
    ahead_ms: float
    here_ms: float
    ratio: float
    rounds: int


def work(heads: int, side: int, window: int, changed: int) -> dict[str, Callable[[], object]]:
    """Return a call of each kernel, on random tensors with a fixed seed."""
    torch.manual_seed(0)
    tokens, channels = side * side, heads * DIM
    tables = [0.1 * torch.randn(side, side, DIM) for _ in range(2)]
    small = [0.1 * torch.randn(window, window, DIM) for _ in range(2)]
    q, k, v = torch.randn(3, 1, heads, tokens, DIM)
    place = torch.arange(tokens)[None]
    qkv = torch.randn(1, tokens + 1, 3, heads, DIM)
    slots = torch.arange(tokens).view(side // window, window, side // window, window)
    slots, onto = slots.transpose(1, 2).reshape(-1, window**2), torch.empty(1, tokens + 1, channels)
    sums = [torch.randn(heads, tokens), torch.rand(heads, tokens), torch.randn(heads, tokens, DIM)]
    keys = torch.randn(4, heads, changed, DIM) / DIM
    rows, places = torch.arange(tokens), torch.randperm(tokens)[:changed]
    x, reference = torch.randn(2, 1, tokens, channels)
    weight, bias = torch.randn(2, channels)
    terms = torch.randn(1, heads, changed, 2 * side)
    merged = torch.stack([rows // side, side + rows % side], -1)[None].int()
    starts = (torch.arange(changed + 1) * tokens // changed)[None].int()
    some = q[:, :, :changed], k[:, :, :changed], v[:, :, :changed]
    kept, src, dst, _ = match_tokens(k, changed, 1, True)
    sizes = torch.ones(1, tokens, 1)
    return {
        "attend": lambda: attend(q, k, v, SCALE, *tables, place),
        "attend_windows": lambda: attend_windows(qkv, slots, onto, SCALE, *small),
        "attend_merged": lambda: attend_merged(*some, SCALE, terms, merged, starts, None),
        "exchange_keys": lambda: exchange_keys(q[0], *sums, rows, *keys, SCALE, *tables, places),
        "match_tokens": lambda: match_tokens(k, changed, 1, True),
        "merge_tokens": lambda: merge_tokens(x, sizes, kept, src, dst),
        "normed_errors": lambda: normed_errors(reference, x, None, 1e-6, weight, bias),
    }


def with_kernels(choice: Choice, run: Callable[[], object]) -> Callable[[], object]:
    """Return the same call with the given kernels."""

    def call() -> object:
        with mock.patch.object(operators, "chosen", lambda: choice):
            return run()

    return call


def steps_of(choice: Choice, arch: str, size: int) -> Callable[[], object]:
    """Return a call of EfficientViT's steps with the given kernels; weights are packed for them."""
    with mock.patch.object(operators, "chosen", lambda: choice):
        model = CompiledEfficientViT(efficientvit(arch))
    x = torch.zeros(1, 3, size, size)
    return with_kernels(choice, lambda: model(x))


def wanted(name: str) -> Choice:
    """Find the kernels of an instruction set.

    Raises:
        UserError: There are none.
    """
    choice = find(name)
    if choice.library is None:
        raise UserError(f"There are no kernels for {name}: {choice.why}.")
    return choice


@one_sentence_errors
def main(argv: list[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    can_run = [s.name for s in INSTRUCTION_SETS if not s.missing()]
    parser.add_argument("--set", choices=can_run, help="instruction set; default: the best")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="small shapes, a few seconds")
    add_record_option(parser)
    args = parser.parse_args(argv)
    recording = Recording(args.record, __file__, argv)
    if not can_run:
        raise UserError("There are no prebuilt kernels for this processor.")
    ahead, here = wanted(args.set or can_run[0]), wanted("native")
    shapes = (2, 8, 4, 16) if args.quick else (12, 42, 14, 256)
    calls = {
        name: [with_kernels(choice, run) for choice in (ahead, here)]
        for name, run in work(*shapes).items()
    }
    model = ("m0", 64) if args.quick else ("m4", 224)
    calls["run_steps"] = [steps_of(choice, *model) for choice in (ahead, here)]
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"ahead: {ahead.name}, {ahead.why}\nhere: {here.why}")
    print("kernel            ahead ms   here ms  ahead / here")
    rows = []
    with torch.inference_mode():
        for name, (first, second) in calls.items():
            seconds = alternate({"ahead": first, "here": second}, args.rounds)
            ahead_ms, here_ms = (1e3 * median(seconds[way]) for way in ("ahead", "here"))
            row = Row(name, ahead.name, ahead_ms, here_ms, ahead_ms / here_ms, args.rounds)
            rows.append(row)
            print(f"{name:<16}{ahead_ms:>10.2f}{here_ms:>10.2f}{row.ratio:>14.3f}", flush=True)
    recording.save([asdict(row) for row in rows])


if __name__ == "__main__":
    main()
