"""Throughput of ToMe against the same model dense, both with fused attention.

    python benchmarks/tome.py                 # all models, some minutes on two cores
    python benchmarks/tome.py --quick         # small ones: that everything runs
    python benchmarks/tome.py --models vit-b --batch 1 8
    python benchmarks/tome.py --train         # forward and backward, as in fine-tuning
    python benchmarks/tome.py --models vitdet --image photo.jpg
    python benchmarks/tome.py --json out.json
    python benchmarks/tome.py --record        # keep the rows in benchmarks/results

Dense and merging models share weights and run alternately in one process, so that load on the
machine affects both. The dense model also runs in OpenVINO, in float32 and bfloat16, if OpenVINO is
installed and the processor supports it. The table has the ratio of median times in torch and the
ratio of multiply-adds, which merging would reach if nothing else took time. ``--dtype bfloat16``
applies to both models in torch.

``error`` is the difference of the merging model's output to the dense one in float32: the norm of
the difference over that of the dense output, for a map minus its mean. ``random`` is the same with
tokens merged at random. Weights are random, and so is the input without ``--image``: the error does
not measure the loss of a trained model.
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
from mmvitaccel.core.tome.controls import RandomMatching
from mmvitaccel.core.tome.schedule import Entry
from mmvitaccel.errors import UserError, one_sentence_errors, refuse_below
from mmvitaccel.records.recording import Recording, add_record_option
from mmvitaccel.testing.baselines import openvino
from mmvitaccel.testing.models import sharing_weights, timm_model, videomae, vitdet


@dataclass(frozen=True)
class Case:
    """A model to time.

    Attributes:
        title: Name in the table.
        build: Builds the model with random weights.
        batches: Batch sizes.
        shape: Shape of one input.
        r: Schedules to time.
        fused: Whether the host's own attention is fused; otherwise, dense means r=0, and OpenVINO
            is left out.
    """

    title: str
    build: Callable[[], nn.Module]
    batches: tuple[int, ...]
    shape: tuple[int, ...]
    r: tuple[Entry, ...]
    fused: bool = True


IMAGE = (3, 224, 224)
CASES = {
    "deit-s": Case(
        "DeiT-S at 224", partial(timm_model, "deit_small_patch16_224"), (1, 8), IMAGE, (8, 13, 16)
    ),
    "vit-s": Case(
        "ViT-S/14 at 224",
        partial(timm_model, "vit_small_patch14_dinov2", img_size=224),
        (1, 8),
        IMAGE,
        (8, 13, 16),
    ),
    "vit-b": Case(
        "ViT-B/16 at 224", partial(timm_model, "vit_base_patch16_224"), (1, 8), IMAGE, (8, 13, 16)
    ),
    "vit-l": Case(
        "ViT-L/16 at 384", partial(timm_model, "vit_large_patch16_384"), (1,), (3, 384, 384), (23,)
    ),
    "videomae": Case(
        "VideoMAE ViT-B, 16 frames", videomae, (1,), (3, 16, 224, 224), (65,), fused=False
    ),
    "vitdet": Case("ViTDet-B at 1024", vitdet, (1,), (3, 1024, 1024), (0.25, 0.5)),
}
QUICK_CASES = {
    "vit-b": Case(
        "ViT-B/16, 2 blocks",
        partial(timm_model, "vit_base_patch16_224", img_size=96, depth=2),
        (1, 2),
        (3, 96, 96),
        (8,),
    ),
    "videomae": Case(
        "VideoMAE, 2 blocks",
        partial(videomae, img_size=64, num_frames=4, depth=2, embed_dims=96, num_heads=3),
        (1,),
        (3, 4, 64, 64),
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
        (1,),
        (3, 64, 64),
        (0.5,),
    ),
}


@dataclass(frozen=True)
class Result:
    """One row of the table; times are medians, in seconds per batch.

    Attributes:
        model: Title of the case.
        batch: Inputs in a batch.
        dtype: Data type of both models in torch.
        r: Tokens merged per block.
        dense_seconds: Time of the dense model in torch.
        openvino_seconds: Time in OpenVINO in float32; None if not run.
        openvino_bf16_seconds: Time in OpenVINO in bfloat16; None if not run.
        merged_seconds: Time of the merging model.
        speedup: ``dense_seconds / merged_seconds``.
        macs_ratio: Ratio of multiply-adds.
        reached: ``speedup`` over ``macs_ratio``.
        error: Relative error of the output; None in training.
        random_error: The same with tokens merged at random.
        rounds: Number of timings.
    """

    model: str
    batch: int
    dtype: str
    r: Entry
    dense_seconds: float
    openvino_seconds: float | None
    openvino_bf16_seconds: float | None
    merged_seconds: float
    speedup: float
    macs_ratio: float
    reached: float
    error: float | None
    random_error: float | None
    rounds: int


def measure(
    case: Case, x: Tensor, rounds: int, train: bool = False, dtype: torch.dtype = torch.float32
) -> list[Result]:
    """Time one model with each of its schedules, alternately."""
    torch.manual_seed(0)
    dense = case.build().train(train).requires_grad_(train)
    merged = {r: sharing_weights(dense) for r in case.r}
    for r, model in merged.items():
        apply_tome(model, r)
    macs = {r: count_macs(model, x).total for r, model in merged.items()}
    dense_macs = count_macs(dense, x).total
    networks = {} if train or not case.fused else networks_of(dense, x)
    expected = None if train else output_of(dense, x)
    for model in (dense, *merged.values()):
        model.to(dtype)
    errors: dict[Entry, tuple[float, float]] = {}
    for r, model in merged.items() if not train else ():
        error = relative_error(output_of(model, x.to(dtype)), expected)
        errors[r] = error, error_at_random(dense, r, x.to(dtype), expected)
    if not case.fused:
        apply_tome(dense, 0)
    models = {"dense": dense, **{str(r): model for r, model in merged.items()}}
    runs = {name: runner(model, x.to(dtype), train) for name, model in models.items()}
    runs |= {name: partial(network, x) for name, network in networks.items()}
    with torch.inference_mode(not train):
        times = alternate(runs, rounds, warmup=1)
    seconds = {name: median(of_run) for name, of_run in times.items()}
    results = []
    for r in case.r:
        speedup = seconds["dense"] / seconds[str(r)]
        error, random_error = errors.get(r, (None, None))
        results.append(
            Result(
                model=case.title,
                batch=len(x),
                dtype=str(dtype).removeprefix("torch."),
                r=r,
                dense_seconds=seconds["dense"],
                openvino_seconds=seconds.get("f32"),
                openvino_bf16_seconds=seconds.get("bf16"),
                merged_seconds=seconds[str(r)],
                speedup=speedup,
                macs_ratio=dense_macs / macs[r],
                reached=speedup / (dense_macs / macs[r]),
                error=error,
                random_error=random_error,
                rounds=rounds,
            )
        )
    return results


def networks_of(model: nn.Module, x: Tensor) -> dict[str, Callable[[Tensor], list[Tensor]]]:
    """Compile the dense model in OpenVINO, by precision; omits those that cannot run."""
    networks = {}
    for precision in ("f32", "bf16"):
        try:
            networks[precision] = openvino(model, x, precision)
        except UserError as error:
            print(f"without OpenVINO in {precision}: {error}", flush=True)
    return networks


@torch.no_grad()
def output_of(model: nn.Module, x: Tensor) -> Tensor:
    """Return the output of a model; of several maps, the last one."""
    out = model(x)
    return (out if isinstance(out, Tensor) else out[-1]).float()


def error_at_random(model: nn.Module, r: Entry, x: Tensor, expected: Tensor) -> float:
    """Error of the dense model's weights with tokens merged at random."""
    model = sharing_weights(model)
    apply_tome(model, r, matching=RandomMatching())
    torch.manual_seed(0)
    return relative_error(output_of(model, x), expected)


def relative_error(ours: Tensor, expected: Tensor) -> float:
    """Norm of the difference over that of the expected output, for a map minus its mean."""
    spread = expected - expected.mean((2, 3), keepdim=True) if expected.ndim == 4 else expected
    return ((ours - expected).norm() / spread.norm()).item()


def read_image(path: str, shape: tuple[int, ...]) -> Tensor:
    """Read a photograph, resized and normalised by its own pixels, and repeat it for a batch."""
    import cv2

    image = cv2.imread(path)
    if image is None:
        raise UserError(f"--image {path} does not exist or cannot be read; give another.")
    x = torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)[None].float()
    x = F.interpolate(x, size=shape[2:], mode="bilinear", antialias=True)
    mean, std = x.mean(dim=(2, 3), keepdim=True), x.std(dim=(2, 3), keepdim=True)
    return ((x - mean) / std).repeat(shape[0], 1, 1, 1)


def runner(model: nn.Module, x: Tensor, train: bool) -> Callable[[], object]:
    """Return a call of the forward pass, and in training of the backward pass."""

    def step() -> None:
        out = model(x)
        (out if isinstance(out, Tensor) else out[-1]).sum().backward()

    return step if train else lambda: model(x)


def row_text(row: Result) -> str:
    """Format a row."""
    ways = (row.dense_seconds, row.openvino_seconds, row.openvino_bf16_seconds, row.merged_seconds)
    times = "".join(f"{'-':>10}" if s is None else f"{1e3 * s:>10.1f}" for s in ways)
    errors = (row.error, row.random_error)
    told = "".join(f"{'-':>8}" if error is None else f"{error:>8.3f}" for error in errors)
    return (
        f"{row.model:<27}{row.batch:>5}{row.r:>6}{times}"
        f"{row.speedup:>8.2f}x{row.macs_ratio:>8.2f}x{row.reached:>8.1%}{told}"
    )


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small models, a few seconds")
    parser.add_argument("--models", nargs="+", choices=list(CASES), help="only these")
    parser.add_argument("--train", action="store_true", help="time forward and backward")
    parser.add_argument(
        "--batch", type=int, nargs="+", help="batch sizes; default: those of each model"
    )
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--image", metavar="FILE", help="a photograph as input of image models")
    parser.add_argument("--rounds", type=int, default=11, help="timings of each model")
    parser.add_argument("--threads", type=int, help="torch threads; default: torch's")
    parser.add_argument("--json", metavar="FILE", help="also write the rows to this file")
    add_record_option(parser)
    args = parser.parse_args(argv)
    refuse_below(args, 1, "batch", "rounds", "threads")
    return args


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the table, and write the rows if requested."""
    args = parse_args(argv)
    recording = Recording(args.record, __file__, argv)
    torch.manual_seed(0)
    if args.threads:
        torch.set_num_threads(args.threads)
    cases = QUICK_CASES if args.quick else CASES
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}")
    print(
        "model                      batch     r  dense ms  openvino      bf16 merged ms  speedup"
        "  allowed reached   error  random"
    )
    results = []
    chosen = [cases[name] for name in args.models or cases if name in cases]
    runs = [(case, batch) for case in chosen for batch in args.batch or case.batches]
    for case, batch in runs:
        shape = (batch, *case.shape)
        takes_image = args.image is not None and len(shape) == 4
        x = read_image(args.image, shape) if takes_image else torch.randn(shape)
        rounds = 3 if args.quick else args.rounds
        for row in measure(case, x, rounds, args.train, getattr(torch, args.dtype)):
            results.append(row)
            print(row_text(row), flush=True)
    recording.save([asdict(row) for row in results])
    if args.json:
        with open(args.json, "w") as file:
            json.dump([asdict(row) for row in results], file, indent=2)


if __name__ == "__main__":
    main()
