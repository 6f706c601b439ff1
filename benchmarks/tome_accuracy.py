"""Accuracy against r, off the shelf: a small ViT trained on real images, then merged.

    pip install scikit-learn
    python benchmarks/tome_accuracy.py --out work_dirs/tome_accuracy

The images are scikit-learn's 1797 handwritten digits (8 x 8 pixels, shipped in its package). Each
is upscaled to 24 x 24 and put somewhere on a canvas of 40 x 40 among fragments of other digits,
so that most of the picture is beside the point and some of it misleads, as in photographs. One
ViT is trained without merging; then its accuracy on digits that it has not seen is measured at
each r with proportional attention, without it, and with pruning instead of merging. The table
(``accuracy.md``, ``accuracy.json``) and the plot (``accuracy.png``) go to ``--out``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmvitaccel import apply_tome
from mmvitaccel.core.macs import count_macs

DIGIT, CANVAS, FRAGMENT, FRAGMENTS = 24, 40, 8, 6
WAYS: dict[str, dict[str, Any]] = {
    "merged": {},
    "merged, no proportional attention": dict(proportional_attention=False),
    "pruned": dict(reduction="prune", proportional_attention=False),
}


def load_digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Digits (N, 1, 24, 24) in [0, 1] and labels for training, and a quarter for testing."""
    from sklearn.datasets import load_digits as load
    from sklearn.model_selection import train_test_split

    digits = load()
    images = torch.from_numpy(digits.images).float()[:, None] / 16
    images = F.interpolate(images, size=DIGIT, mode="bilinear", align_corners=False)
    labels = torch.from_numpy(digits.target)
    train, test = train_test_split(
        range(len(labels)), test_size=0.25, random_state=0, stratify=digits.target
    )
    return images[train], labels[train], images[test], labels[test]


def place(digits: Tensor, clutter: Tensor, generator: torch.Generator) -> Tensor:
    """Canvases (N, 1, 40, 40) in [-1, 1], a digit on each among fragments of ``clutter``."""

    def number(limit: int) -> int:
        return int(torch.randint(limit, (1,), generator=generator))

    canvases = torch.zeros(len(digits), 1, CANVAS, CANVAS)
    for canvas, digit in zip(canvases, digits):
        for _ in range(FRAGMENTS):
            other = clutter[number(len(clutter))]
            y, x = number(DIGIT - FRAGMENT), number(DIGIT - FRAGMENT)
            down, right = number(CANVAS - FRAGMENT), number(CANVAS - FRAGMENT)
            target = canvas[:, down : down + FRAGMENT, right : right + FRAGMENT]
            target.copy_(torch.maximum(target, other[:, y : y + FRAGMENT, x : x + FRAGMENT]))
        down, right = number(CANVAS - DIGIT + 1), number(CANVAS - DIGIT + 1)
        target = canvas[:, down : down + DIGIT, right : right + DIGIT]
        target.copy_(torch.maximum(target, digit))
    return canvases * 2 - 1


def make_vit(depth: int = 6) -> nn.Module:
    """A ViT of 100 patches and a class token."""
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        img_size=CANVAS,
        patch_size=4,
        in_chans=1,
        num_classes=10,
        embed_dim=64,
        depth=depth,
        num_heads=4,
    )


def train(model: nn.Module, digits: Tensor, labels: Tensor, epochs: int) -> None:
    """AdamW, cosine after a warm-up; every epoch places the digits anew."""
    generator = torch.Generator().manual_seed(0)
    steps = epochs * (len(digits) // 64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 2e-3, total_steps=steps, pct_start=0.1
    )
    model.train()
    for epoch in range(epochs):
        images = place(digits, digits, generator)
        order = torch.randperm(len(images))
        total = 0.0
        for batch in order[: len(order) // 64 * 64].split(64):
            loss = F.cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1}/{epochs}: loss {total / (len(order) // 64):.3f}", flush=True)
    model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of digits told right, in percent."""
    right = sum(
        (model(x).argmax(1) == y).sum().item() for x, y in zip(images.split(150), labels.split(150))
    )
    return 100 * right / len(labels)


def sweep(
    model: nn.Module, images: Tensor, labels: Tensor, rs: Sequence[int]
) -> list[dict[str, Any]]:
    """One row per r: tokens that leave the last block, multiply-adds and accuracies."""
    dense = count_macs(model, images[:1]).total
    rows = []
    for r in rs:
        row: dict[str, Any] = dict(r=r)
        for name, options in WAYS.items():
            handle = apply_tome(model, r, **options)
            row[name] = accuracy(model, images, labels)
            row["tokens"] = handle.info.tokens[-1]
            if name == "merged":
                row["macs"] = count_macs(model, images[:1]).total / dense
            handle.remove()
        rows.append(row)
        print(
            "  ".join(
                f"{k} {v:.2f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()
            )
        )
    return rows


def write(rows: list[dict[str, Any]], out: Path) -> None:
    """The table and the plot."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    out.mkdir(parents=True, exist_ok=True)
    (out / "accuracy.json").write_text(json.dumps(rows, indent=2) + "\n")
    header = ["r", "tokens left", "multiply-adds", *WAYS]
    lines = [" | ".join(["", *header, ""]).strip(), "|" + " --- |" * len(header)]
    for row in rows:
        cells = [row["r"], row["tokens"], f"{row['macs']:.2f}", *(f"{row[w]:.2f}" for w in WAYS)]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    (out / "accuracy.md").write_text("\n".join(lines) + "\n")
    figure, axes = pyplot.subplots(figsize=(6, 4))
    for name in WAYS:
        axes.plot([row["r"] for row in rows], [row[name] for row in rows], "o-", ms=3, label=name)
    axes.set(xlabel="r (tokens merged in each block)", ylabel="accuracy (%)")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(out / "accuracy.png", dpi=150)


def main() -> None:
    """Train (or load what an earlier run trained), sweep, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("work_dirs/tome_accuracy"))
    parser.add_argument("--epochs", type=int, default=80)
    parser.add_argument("--r", type=int, nargs="+", default=list(range(0, 51, 3)))
    args = parser.parse_args()
    torch.manual_seed(0)
    digits, labels, test_digits, test_labels = load_digits()
    test_images = place(test_digits, test_digits, torch.Generator().manual_seed(1))
    model = make_vit()
    weights = args.out / "vit.pth"
    if weights.exists():
        model.load_state_dict(torch.load(weights, weights_only=True))
        model.eval()
    else:
        train(model, digits, labels, args.epochs)
        args.out.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), weights)
    print(f"dense: {accuracy(model, test_images, test_labels):.2f} % of {len(test_labels)} digits")
    write(sweep(model, test_images, test_labels, args.r), args.out)
    print((args.out / "accuracy.md").read_text())


if __name__ == "__main__":
    main()
