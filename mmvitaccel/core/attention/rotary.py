"""Rotary position embedding of any subset of tokens, from a table of sines and cosines."""

from __future__ import annotations

import torch
from torch import Tensor


def with_identity(rope: Tensor, num_prefix_tokens: int) -> Tensor:
    """Add rows without rotation for prefix tokens: (..., N, 2D) to (..., P + N, 2D)."""
    if num_prefix_tokens == 0:
        return rope
    sin = rope.new_zeros(*rope.shape[:-2], num_prefix_tokens, rope.shape[-1] // 2)
    return torch.cat([torch.cat([sin, torch.ones_like(sin)], dim=-1), rope], dim=-2)


def apply_rope(x: Tensor, rope: Tensor, half: bool = False) -> Tensor:
    """Rotate x (B, H, M, D) by rope (1 or B, 1 or H, M, 2D).

    Args:
        x: Queries or keys.
        rope: Sines (D) followed by cosines (D) for each token.
        half: Whether channel i is paired with channel i + D / 2; otherwise with its neighbour.
    """
    sin, cos = rope.chunk(2, dim=-1)
    if half:
        first, second = x.chunk(2, dim=-1)
        turned = torch.cat([-second, first], dim=-1)
    else:
        turned = torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)
    return x * cos + turned * sin
