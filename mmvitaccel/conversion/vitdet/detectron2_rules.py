"""Differences between detectron2 and OpenMMLab: pixel normalisation and anchors."""

from __future__ import annotations

import torch
from torch import Tensor

from mmvitaccel.conversion.layout.layout import Adapted, Weights

PATCHES = "backbone.patch_embed.proj.weight"
MEAN = torch.tensor([123.675, 116.28, 103.53])
STD = torch.tensor([58.395, 57.12, 57.375])
"""What the configs subtract and divide by, in the order red, green, blue."""


def adapt_pixels(adapted: Adapted, weights: Weights) -> None:
    """Make the patch embedding expect the configs' pixels: RGB, with ImageNet's mean and std.

    detectron2's older models take BGR, some without a standard deviation. Both are linear in the
    channels, so they can be folded into the weights. Files without the two tensors come from
    ViTDet's own configs, whose normalisation is the same as here.

    Raises:
        ValueError: The means differ; they cannot be folded where an image is padded.
    """
    if "pixel_mean" not in weights or PATCHES not in adapted.weights:
        return
    mean = weights["pixel_mean"].flatten().float()
    std = weights.get("pixel_std", STD).flatten().float()
    done = []
    if _same(mean, MEAN.flip(0)):
        adapted.weights[PATCHES] = adapted.weights[PATCHES].flip(1)
        mean, std = mean.flip(0), std.flip(0)
        done.append("permuted from BGR to RGB")
    if not _same(mean, MEAN):
        raise ValueError(
            f"its pixels are normalised with mean {mean.tolist()}, and not {MEAN.tolist()} as in "
            "the configs; another mean cannot be taken over where an image is padded"
        )
    if not _same(std, STD):
        scale = (STD / std).to(adapted.weights[PATCHES].dtype)
        adapted.weights[PATCHES] = adapted.weights[PATCHES] * scale[:, None, None]
        done.append(f"scaled from a standard deviation of {std.tolist()}")
    if done:
        adapted.changes[PATCHES] = ", ".join(done)


def check_anchors(weights: Weights) -> None:
    """Check that the anchors in the file, where there are any, are those of the configs.

    Both codebases centre anchors on the cell's corner, with width sqrt(area / ratio) and height
    ratio * width, without an offset and in the same order: the weights need no change.

    Raises:
        ValueError: Names the level that differs.
    """
    name = "proposal_generator.anchor_generator.cell_anchors.{}"
    for level in range(5):
        found = weights.get(name.format(level))
        if found is None:
            continue
        side = 8.0 * 2 ** (level + 2)
        ratios = torch.tensor([0.5, 1.0, 2.0])
        half = torch.stack((side / ratios.sqrt(), side * ratios.sqrt()), 1) / 2
        expected = torch.cat((-half, half), 1)
        if found.shape != expected.shape or not _same(found.float(), expected, 0.01):
            raise ValueError(
                f"the anchors of level {level} are {found.tolist()}, and not "
                f"{expected.tolist()} as in the configs"
            )


def _same(a: Tensor, b: Tensor, tolerance: float = 1e-3) -> bool:
    return a.shape == b.shape and bool(((a - b).abs() < tolerance).all())
