"""Differences between detectron2 and OpenMMLab: pixel normalisation and anchors."""

from __future__ import annotations

import torch
from torch import Tensor

from mmvitaccel.conversion.layout.layout import Adapted, Weights

PATCHES = "backbone.patch_embed.proj.weight"
MEAN = torch.tensor([123.675, 116.28, 103.53])
STD = torch.tensor([58.395, 57.12, 57.375])
"""Mean and standard deviation of the configs' pixels; order: red, green, blue."""


def adapt_pixels(adapted: Adapted, weights: Weights) -> None:
    """Change the patch embedding to accept the configs' pixels: RGB, with ImageNet's mean and std.

    detectron2's older models take BGR, some without a standard deviation. Channel order and scale
    can be folded into the weights. Files without the tensors ``pixel_mean`` and ``pixel_std`` come
    from ViTDet's own configs, whose normalisation is the same as here.

    Raises:
        ValueError: If the means differ. A mean cannot be folded, because padding is 0 after
            normalisation.
    """
    if "pixel_mean" not in weights or PATCHES not in adapted.weights:
        return
    mean = weights["pixel_mean"].flatten().float()
    std = weights.get("pixel_std", STD).flatten().float()
    changes = []
    if _same(mean, MEAN.flip(0)):
        adapted.weights[PATCHES] = adapted.weights[PATCHES].flip(1)
        mean, std = mean.flip(0), std.flip(0)
        changes.append("permuted from BGR to RGB")
    if not _same(mean, MEAN):
        raise ValueError(
            f"its pixels are normalised with mean {mean.tolist()}, but the configs use "
            f"{MEAN.tolist()}; another mean cannot be converted, because images are padded"
        )
    if not _same(std, STD):
        scale = (STD / std).to(adapted.weights[PATCHES].dtype)
        adapted.weights[PATCHES] = adapted.weights[PATCHES] * scale[:, None, None]
        changes.append(f"scaled from a standard deviation of {std.tolist()}")
    if changes:
        adapted.changes[PATCHES] = ", ".join(changes)


def check_anchors(weights: Weights) -> None:
    """Check that the anchors in the file, if any, are those of the configs.

    Both codebases centre anchors on the cell's corner, with width sqrt(area / ratio) and height
    ratio * width, without an offset and in the same order. The weights need no change.

    Raises:
        ValueError: If they differ; it names the level.
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
                f"the anchors of level {level} are {found.tolist()}, but the configs have "
                f"{expected.tolist()}"
            )


def _same(a: Tensor, b: Tensor, tolerance: float = 1e-3) -> bool:
    return a.shape == b.shape and bool(((a - b).abs() < tolerance).all())
