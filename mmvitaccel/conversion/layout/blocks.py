"""Names and shapes of transformer blocks, which several layouts share."""

from __future__ import annotations

import re

from mmvitaccel.conversion.layout.layout import Shapes, Weights

PUBLISHED_DEPTHS = {768: 12, 1024: 24, 1280: 32}
"""Depths of ViT-B, ViT-L and ViT-H by width; a file with fewer blocks is truncated."""


def count(weights: Weights, prefix: str) -> int:
    """Return the length of the module list ``prefix``: its highest index plus one."""
    found = [re.match(rf"{re.escape(prefix)}\.(\d+)\.", name) for name in weights]
    return max((int(match[1]) + 1 for match in found if match), default=0)


def size(weights: Weights, name: str, axis: int = 0) -> int:
    """Return the length of a tensor along an axis.

    Raises:
        ValueError: If the tensor is missing or has no such axis.
    """
    if name not in weights or weights[name].dim() <= axis:
        raise ValueError(f"'{name}' is missing; the file is truncated or belongs to another model")
    return weights[name].shape[axis]


def block_shapes(prefix: str, dim: int, hidden: int, depth: int) -> Shapes:
    """Return the shapes of pre-norm blocks with one linear layer for queries, keys and values."""
    parts = {
        "norm1": (dim,),
        "attn.qkv": (3 * dim, dim),
        "attn.proj": (dim, dim),
        "norm2": (dim,),
        "mlp.fc1": (hidden, dim),
        "mlp.fc2": (dim, hidden),
    }
    shapes: Shapes = {}
    for block in range(depth):
        for part, shape in parts.items():
            shapes |= with_bias(f"{prefix}.{block}.{part}", *shape)
    return shapes


def with_bias(name: str, *weight: int) -> Shapes:
    """Return the shapes of a layer's weight and bias; the bias has the weight's first length."""
    return {f"{name}.weight": weight, f"{name}.bias": weight[:1]}


def transposed(name: str, inward: int, outward: int, kernel: int = 2) -> Shapes:
    """Return the shapes of a transposed convolution's weight and bias."""
    return {f"{name}.weight": (inward, outward, kernel, kernel), f"{name}.bias": (outward,)}
