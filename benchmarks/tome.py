"""Throughput of ToMe against the same model dense, both with fused attention.

    python benchmarks/tome.py                 # all models, some minutes on two cores
    python benchmarks/tome.py --quick         # small ones: that everything runs
    python benchmarks/tome.py --models vit-b  # one of them
    python benchmarks/tome.py --train         # forward and backward, as in fine-tuning
    python benchmarks/tome.py --models vitdet --image photo.jpg
    python benchmarks/tome.py --json out.json
    python benchmarks/tome.py --record        # keep the rows in benchmarks/results

Dense and merging models share their weights and run in turn in one process, so that what slows
the machine slows both. Beside the ratio of their median times stands the ratio of their
multiply-adds, counted as they ran: what merging would give if nothing else took time.

ViTDet puts out a map; behind its row stands how far the merging model's map is from the dense
one's: the norm of the difference over that of the dense map less its mean. Weights are random,
and so is the input without ``--image``: it is no measure of what a trained detector loses.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmvitaccel import apply_tome
from mmvitaccel.analysis.timing import alternate
from mmvitaccel.core.macs.counter import count_macs
from mmvitaccel.core.tome.schedule import Entry
from mmvitaccel.errors import UserError, one_sentence_errors
from mmvitaccel.records.recording import Recording, add_record_option
from mmvitaccel.testing.models import sharing_weights, timm_model, videomae, vitdet


@dataclass(frozen=True)
class Case:
    """A model to time.

    Attributes:
        title: What the table calls it.
        build: Makes it, with random weights.
        shape: Shape of its input.
        r: Schedules to time.
        fused: Whether the host's own attention is fused; if not, dense means r=0.
        has_map: Whether it puts out a map, whose error is to be told.
    """

    title: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    r: tuple[Entry, ...]
    fused: bool = True
    has_map: bool = False


CASES = {
    "vit-b": Case(
        "ViT-B/16 at 224",
        partial(timm_model, "vit_base_patch16_224"),
        (8, 3, 224, 224),
        (8, 13, 16),
    ),
    "deit-s": Case(
        "DeiT-S at 224", partial(timm_model, "deit_small_patch16_224"), (16, 3, 224, 224), (13,)
    ),
    "vit-l": Case(
        "ViT-L/16 at 384", partial(timm_model, "vit_large_patch16_384"), (1, 3, 384, 384), (23,)
    ),
    "videomae": Case(
        "VideoMAE ViT-B, 16 frames", videomae, (1, 3, 16, 224, 224), (65,), fused=False
    ),
    "vitdet": Case("ViTDet-B at 1024", vitdet, (1, 3, 1024, 1024), (0.25, 0.5), has_map=True),
}
QUICK_CASES = {
    "vit-b": Case(
        "ViT-B/16, 2 blocks",
        partial(timm_model, "vit_base_patch16_224", img_size=96, depth=2),
        (2, 3, 96, 96),
        (8,),
    ),
    "videomae": Case(
        "VideoMAE, 2 blocks",
        partial(videomae, img_size=64, num_frames=4, depth=2, embed_dims=96, num_heads=3),
        (1, 3, 4, 64, 64),
        (8,),
        fused=False,
    ),
    "vitdet": Case(
        "ViTDet, 2 blocks",
        partial(
            vitdet,
            img_size=64,
            embed_dim=96,
            depth=2,
            num_heads=3,
            window_size=3,
            window_block_indexes=(0,),
        ),
        (1, 3, 64, 64),
        (0.5,),
        has_map=True,
    ),
}


@dataclass(frozen=True)
class Result:
    """One row of the table; times are medians, in seconds a batch.

    Attributes:
        model: Title of the case.
        batch: Inputs in a batch.
        r: Tokens merged a block.
        dense_seconds: Time of the dense model.
        merged_seconds: Time of the merging one.
        speedup: Ratio of these medians.
        macs_ratio: Ratio of multiply-adds.
        reached: ``speedup`` over ``macs_ratio``.
        error: Relative error of the map, if there is one.
        rounds: How often each was timed.
    """

    model: str
    batch: int
    r: Entry
    dense_seconds: float
    merged_seconds: float
    speedup: float
    macs_ratio: float
    reached: float
    error: float | None
    rounds: int


def measure(case: Case, x: Tensor, rounds: int, train: bool = False) -> list[Result]:
    """Time one model at each of its schedules, all in turn."""
    torch.manual_seed(0)
    dense = case.build().train(train).requires_grad_(train)
    merged = {r: sharing_weights(dense) for r in case.r}
    for r, model in merged.items():
        apply_tome(model, r)
    macs = {r: count_macs(model, x).total for r, model in merged.items()}
    dense_macs = count_macs(dense, x).total
    if not case.fused:
        apply_tome(dense, 0)
    with torch.inference_mode(not train):
        seconds = alternate(
            {
                str(key): runner(model, x, train)
                for key, model in (("dense", dense), *merged.items())
            },
            rounds,
            warmup=1,
        )
    results = []
    dense_seconds = median(seconds["dense"])
    for r in case.r:
        merged_seconds = median(seconds[str(r)])
        speedup, allowed = dense_seconds / merged_seconds, dense_macs / macs[r]
        results.append(
            Result(
                model=case.title,
                batch=len(x),
                r=r,
                dense_seconds=dense_seconds,
                merged_seconds=merged_seconds,
                speedup=speedup,
                macs_ratio=allowed,
                reached=speedup / allowed,
                error=map_error(dense, merged[r], x) if case.has_map else None,
                rounds=rounds,
            )
        )
    return results


@torch.no_grad()
def map_error(dense: nn.Module, merged: nn.Module, x: Tensor) -> float:
    """Norm of the difference of their maps, over that of the dense one less its mean."""
    (expected,), (ours,) = dense(x), merged(x)
    spread = expected - expected.mean(dim=(2, 3), keepdim=True)
    return ((ours - expected).norm() / spread.norm()).item()


def read_image(path: str, shape: tuple[int, ...]) -> Tensor:
    """A photograph, resized, normalised by its own pixels, at every place of a batch."""
    import cv2

    image = cv2.imread(path)
    if image is None:
        raise UserError(f"--image {path} does not exist or cannot be read; give another.")
    x = torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)[None].float()
    x = F.interpolate(x, size=shape[2:], mode="bilinear", antialias=True)
    mean, std = x.mean(dim=(2, 3), keepdim=True), x.std(dim=(2, 3), keepdim=True)
    return ((x - mean) / std).repeat(shape[0], 1, 1, 1)


def runner(model: nn.Module, x: Tensor, train: bool) -> Callable[[], object]:
    """One forward pass, to be called; with its backward for training."""

    def step() -> None:
        out = model(x)
        (out if isinstance(out, Tensor) else out[-1]).sum().backward()

    return step if train else lambda: model(x)


def row_text(row: Result) -> str:
    """A line of the table."""
    error = "" if row.error is None else f"{row.error:>8.3f}"
    return (
        f"{row.model:<27}{row.batch:>5}{row.r:>6}{row.dense_seconds:>10.3f}"
        f"{row.merged_seconds:>10.3f}{row.speedup:>8.2f}x{row.macs_ratio:>8.2f}x"
        f"{row.reached:>8.1%}{error}"
    )


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small models, a few seconds")
    parser.add_argument("--models", nargs="+", choices=list(CASES), help="only these")
    parser.add_argument("--train", action="store_true", help="time forward and backward")
    parser.add_argument("--batch", type=int, help="inputs in a batch; each model's own otherwise")
    parser.add_argument("--image", metavar="FILE", help="a photograph as input of image models")
    parser.add_argument("--rounds", type=int, default=11, help="timings of each model")
    parser.add_argument("--threads", type=int, help="torch threads; torch's own default otherwise")
    parser.add_argument("--json", metavar="FILE", help="write the figures to this file too")
    add_record_option(parser)
    args = parser.parse_args(argv)
    for name in ("batch", "rounds", "threads"):
        given = getattr(args, name)
        if given is not None and given < 1:
            raise UserError(f"--{name} {given}: give 1 or more.")
    return args


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the table and write the figures if asked to."""
    args = parse_args(argv)
    recording = Recording(args.record, __file__, argv)
    torch.manual_seed(0)
    if args.threads:
        torch.set_num_threads(args.threads)
    cases = QUICK_CASES if args.quick else CASES
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}")
    head = "model                      batch     r   dense s  merged s  speedup  allowed reached"
    print(f"{head}   error")
    results = []
    for name in [name for name in args.models or cases if name in cases]:
        case = cases[name]
        shape = (args.batch or case.shape[0], *case.shape[1:])
        takes_image = args.image is not None and len(shape) == 4
        x = read_image(args.image, shape) if takes_image else torch.randn(shape)
        for row in measure(case, x, 3 if args.quick else args.rounds, args.train):
            results.append(row)
            print(row_text(row), flush=True)
    recording.save([asdict(row) for row in results])
    if args.json:
        with open(args.json, "w") as file:
            json.dump([asdict(row) for row in results], file, indent=2)


if __name__ == "__main__":
    main()
