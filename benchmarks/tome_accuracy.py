"""Accuracy against r without training for it: a small ViT trained on real images, then merged.

    pip install -r requirements/benchmarks.txt
    python benchmarks/tome_accuracy.py --out work_dirs/tome_accuracy

The images are made from data of scikit-learn: its 1797 handwritten digits, drawn bright on dark or
dark on bright over pieces of its two photographs, so that no part of a picture is empty. A quarter
of the digits and a third of each photograph are held out for testing. One ViT is trained without
merging. Its accuracy is then measured at each r with and without proportional attention, and with
pruning instead of merging. The table (``accuracy.md``, ``accuracy.json``), the plot
(``accuracy.png``) and the weights are written to ``--out``; a second run loads the weights.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmvitaccel import apply_tome
from mmvitaccel.core.macs.counter import count_macs
from mmvitaccel.errors import one_sentence_errors
from mmvitaccel.extras import require
from mmvitaccel.records.recording import Recording, add_record_option

DIGIT, CANVAS, PATCH = 24, 32, 4
BATCH = 32
INK = 0.9  # share of the ink in a digit's darkest pixels; the rest is photograph
WAYS: dict[str, dict[str, Any]] = {
    "merged": {},
    "merged, no proportional attention": dict(proportional_attention=False),
    "pruned": dict(reduction="prune", proportional_attention=False),
}


class Split(NamedTuple):
    """Sources of pictures, for training or for testing.

    Attributes:
        digits: (N, 1, 24, 24) in [0, 1].
        labels: (N,) int64.
        photos: (P, 3, H, W) in [0, 1].
    """

    digits: Tensor
    labels: Tensor
    photos: Tensor


def load_splits() -> tuple[Split, Split]:
    """Load the training and test split, which share no digit and no piece of a photograph."""
    require("benchmarks", "sklearn")
    from sklearn.datasets import load_digits, load_sample_images
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    digits = torch.from_numpy(bunch.images).float()[:, None] / 16
    digits = F.interpolate(digits, size=DIGIT, mode="bilinear", align_corners=False)
    labels = torch.from_numpy(bunch.target)
    photos = torch.stack([torch.tensor(image) for image in load_sample_images().images])
    photos = photos.permute(0, 3, 1, 2).float() / 255
    photos = F.interpolate(photos, scale_factor=0.5, mode="area")
    border = photos.shape[-1] * 2 // 3
    train, test = train_test_split(
        range(len(labels)), test_size=0.25, random_state=0, stratify=bunch.target
    )
    return (
        Split(digits[train], labels[train], photos[..., :border]),
        Split(digits[test], labels[test], photos[..., border:]),
    )


def draw(split: Split, generator: torch.Generator, contrast: float = 1.0) -> Tensor:
    """Draw every digit once, somewhere over a piece of photograph: (N, 3, 32, 32) in [-1, 1].

    Args:
        split: Sources.
        generator: Chooses the pieces and places.
        contrast: Contrast of the photographs; 0 gives a black ground.
    """

    def choose(limit: int) -> list[int]:
        return torch.randint(limit, (len(split.digits),), generator=generator).tolist()

    count, _, height, width = split.photos.shape
    places = (CANVAS - DIGIT) // PATCH + 1  # positions on the grid of patches
    chosen = (count, height - CANVAS + 1, width - CANVAS + 1, places, places)
    pictures = []
    for digit, photo, y, x, row, column in zip(split.digits, *map(choose, chosen)):
        picture = split.photos[photo, :, y : y + CANVAS, x : x + CANVAS] * contrast
        top, left = row * PATCH, column * PATCH
        ground = picture[:, top : top + DIGIT, left : left + DIGIT]
        ink = torch.full_like(ground, float(ground.mean() < 0.5))
        ground.lerp_(ink, INK * digit.expand_as(ground))
        pictures.append(picture)
    return torch.stack(pictures) * 2 - 1


def make_vit() -> nn.Module:
    """Make a ViT of 64 patches and a class token."""
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        img_size=CANVAS, patch_size=PATCH, num_classes=10, embed_dim=64, depth=6, num_heads=4
    )


def train(model: nn.Module, split: Split, epochs: int, lr: float = 2e-3) -> None:
    """Train with AdamW and a cosine schedule after a warm-up, on new pictures in every epoch.

    The photographs are faint at first.
    """
    generator = torch.Generator().manual_seed(0)
    steps = len(split.digits) // BATCH
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, lr, total_steps=epochs * steps, pct_start=0.15
    )
    model.train()
    for epoch in range(epochs):
        # Digits are learnt first; with full photographs from the start, none are learnt
        images = draw(split, generator, contrast=min(1.0, epoch / (0.4 * epochs)))
        total = 0.0
        for batch in torch.randperm(len(images))[: steps * BATCH].split(BATCH):
            loss = F.cross_entropy(model(images[batch]), split.labels[batch])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1}/{epochs}: loss {total / steps:.3f}", flush=True)
    model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of correctly classified digits in percent."""
    right = sum(
        (model(x).argmax(1) == y).sum().item() for x, y in zip(images.split(150), labels.split(150))
    )
    return 100 * right / len(labels)


def sweep(
    model: nn.Module, images: Tensor, labels: Tensor, rs: Sequence[int]
) -> list[dict[str, Any]]:
    """Make a row for each r: tokens after the last block, relative multiply-adds, accuracies."""
    dense = count_macs(model, images[:1]).total
    rows = []
    for r in rs:
        row: dict[str, Any] = dict(r=r)
        for name, options in WAYS.items():
            handle = apply_tome(model, r, **options)
            row[name] = accuracy(model, images, labels)
            if name == "merged":
                row["tokens"] = handle.info.tokens[-1]
                row["macs"] = count_macs(model, images[:1]).total / dense
            handle.remove()
        rows.append(row)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Format the rows as Markdown."""
    header = ["r", "tokens left", "multiply-adds", *WAYS]
    lines = ["| " + " | ".join(header) + " |", "|" + " ---: |" * len(header)]
    for row in rows:
        cells = [row["r"], row["tokens"], f"{row['macs']:.2f}", *(f"{row[w]:.1f}" for w in WAYS)]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def write(rows: list[dict[str, Any]], out: Path) -> None:
    """Write the table and the plot."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    (out / "accuracy.json").write_text(json.dumps(rows, indent=2) + "\n")
    (out / "accuracy.md").write_text(table(rows) + "\n")
    figure, axes = pyplot.subplots(figsize=(6, 4))
    for name in WAYS:
        axes.plot([row["r"] for row in rows], [row[name] for row in rows], "o-", ms=3, label=name)
    axes.set(xlabel="r (tokens merged in each block)", ylabel="accuracy (%)")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(out / "accuracy.png", dpi=100)
    pyplot.close(figure)


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Train (or load the weights of an earlier run), sweep and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("work_dirs/tome_accuracy"))
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--r", type=int, nargs="+", default=[*range(0, 13, 2), 16, 24, 32])
    add_record_option(parser)
    args = parser.parse_args(argv)
    recording = Recording(args.record, __file__, argv)
    torch.manual_seed(0)
    for_training, for_testing = load_splits()
    # Two backgrounds for each digit reduce the variance of the results
    for_testing = Split(
        for_testing.digits.repeat(2, 1, 1, 1), for_testing.labels.repeat(2), for_testing.photos
    )
    images = draw(for_testing, torch.Generator().manual_seed(1))
    model = make_vit()
    args.out.mkdir(parents=True, exist_ok=True)
    weights = args.out / "vit.pth"
    if weights.exists():
        model.load_state_dict(torch.load(weights, weights_only=True))
        model.eval()
        print(f"weights of an earlier run: {weights}")
    else:
        train(model, for_training, args.epochs)
        torch.save(model.state_dict(), weights)
    rows = sweep(model, images, for_testing.labels, args.r)
    write(rows, args.out)
    recording.save(rows)
    print(f"{len(images)} pictures; multiply-adds over dense, accuracy in percent\n{table(rows)}")


if __name__ == "__main__":
    main()
