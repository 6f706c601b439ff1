"""ViViT and VideoMAE on one real clip: dense, with merged tokens, and ViViT with Eventful.

    python benchmarks/clip.py VIDEO                  # ViT-B, a few minutes on two cores
    python benchmarks/clip.py VIDEO --models vivit   # one of the two
    python benchmarks/clip.py VIDEO --clips 12       # as many at once, as a test of 12 views has
    python benchmarks/clip.py VIDEO --quick          # small models: that everything runs
    python benchmarks/clip.py VIDEO --json out.json
    python benchmarks/clip.py VIDEO --record         # keep the rows in benchmarks/results

All variants process the same two seconds of the video: 32 frames, of which VideoMAE takes every
other one. With several clips, each begins one time step after the previous one. The variants of a
model share its random weights, which affect only Eventful's cost, and only slightly. They run
alternately in one process. The table has the ratio of median times and that of multiply-adds.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from mmvitaccel import apply_eventful, apply_tome
from mmvitaccel.analysis.timing import alternate
from mmvitaccel.core.eventful.gates.policy import TopK
from mmvitaccel.core.macs.counter import count_macs
from mmvitaccel.errors import one_sentence_errors, refuse_below
from mmvitaccel.records.recording import Recording, add_record_option
from mmvitaccel.testing import models as builders
from mmvitaccel.testing.clips import FRAMES, read_clips

Variant = tuple[str, Callable[[nn.Module], Any]]
# Title, model, variants, and the frame stride of its input.
Case = tuple[str, nn.Module, list[Variant], int]


@dataclass(frozen=True)
class Row:
    """One variant of a model.

    Attributes:
        model: Name of the model.
        variant: Method and its setting.
        gmacs: Multiply-adds of all clips, in 1e9.
        macs_ratio: Multiply-adds of the dense model over ``gmacs``.
        seconds: Median time of all clips.
        speedup: Time of the dense model over ``seconds``.
    """

    model: str
    variant: str
    gmacs: float
    macs_ratio: float
    seconds: float
    speedup: float


def tome(r: int) -> Variant:
    """Merge r tokens in each block."""
    return f"ToMe r={r}", lambda model: apply_tome(model, r)


def eventful(k: int, mode: str) -> Variant:
    """Let k tokens pass each gate."""
    return f"Eventful k={k}, {mode}", lambda model: apply_eventful(model, TopK(k), mode)


def vivit(quick: bool) -> Case:
    """ViViT-B on every frame of the clip."""
    size = dict(spatial_depth=1, embed_dim=96, num_heads=2) if quick else dict(arch="base")
    variants = [tome(8), tome(13), eventful(96, "exact"), eventful(48, "exact")]
    return "ViViT-B, 32 frames", builders.vivit(**size), [*variants, eventful(48, "delta")], 1


def videomae(quick: bool) -> Case:
    """VideoMAE on every other frame."""
    small = dict(depth=1, embed_dims=96, num_heads=2) if quick else {}
    model = builders.videomae(num_frames=FRAMES // 2, **small)
    return "VideoMAE ViT-B, 16 frames", model, [tome(0), tome(40), tome(65)], 2


CASES = {"vivit": vivit, "videomae": videomae}


def measure(
    title: str, dense: nn.Module, variants: list[Variant], x: Tensor, rounds: int
) -> list[Row]:
    """Count and time a model and its variants."""
    dense.eval().requires_grad_(False)
    models = {"dense": dense}
    for name, put_on in variants:
        models[name] = builders.sharing_weights(dense)
        put_on(models[name])
    macs = {name: count_macs(model, x).total for name, model in models.items()}
    with torch.no_grad():
        runs = {name: (lambda m=model: m(x)) for name, model in models.items()}
        seconds = {name: median(times) for name, times in alternate(runs, rounds, 1).items()}
    return [
        Row(
            title,
            name,
            macs[name] / 1e9,
            macs["dense"] / macs[name],
            seconds[name],
            seconds["dense"] / seconds[name],
        )
        for name in models
    ]


def table(rows: list[Row]) -> str:
    """Format the rows as Markdown."""
    lines = [
        "| model | variant | G multiply-adds | dense / this | ms | dense / this |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {row.model} | {row.variant} | {row.gmacs:.2f} | {row.macs_ratio:.2f}x "
        f"| {1e3 * row.seconds:.0f} | {row.speedup:.2f}x |"
        for row in rows
    ]
    return "\n".join(lines)


@one_sentence_errors
def main(argv: list[str] | None = None) -> None:
    """Measure the models on the clip."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("video")
    parser.add_argument("--models", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--quick", action="store_true", help="small models, one round")
    parser.add_argument("--clips", type=int, default=1, help="clips in a batch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE")
    add_record_option(parser)
    args = parser.parse_args(argv)
    refuse_below(args, 1, "clips")
    recording = Recording(args.record, __file__, argv)
    clip, rows = read_clips(args.video, args.clips), []
    torch.manual_seed(0)
    for title, model, variants, every in (CASES[name](args.quick) for name in args.models):
        x = clip[:, :, ::every].contiguous()
        rows += measure(title, model, variants, x, 1 if args.quick else args.rounds)
    print(
        f"{args.video}, torch {torch.__version__}, {torch.get_num_threads()} threads, "
        f"{platform.processor() or platform.machine()}"
    )
    print(table(rows))
    if args.json:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    recording.save([asdict(row) for row in rows])


if __name__ == "__main__":
    main()
