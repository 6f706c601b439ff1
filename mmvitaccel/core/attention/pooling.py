"""Average pooling of keys and values over a grid (Eventful Transformers, arXiv 2308.13494, 4.4)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def pooled_grid(grid_size: tuple[int, int], pool_size: int) -> tuple[int, int]:
    """The grid (H, W) of pooled cells; the last cell of an axis may have fewer tokens."""
    return -(-grid_size[0] // pool_size), -(-grid_size[1] // pool_size)


def pool_grid(x: Tensor, grid_size: tuple[int, int], pool_size: int) -> Tensor:
    """Mean over squares of tokens.

    Args:
        x: (B, heads, H * W, D).
        grid_size: (H, W).
        pool_size: Side of a cell in tokens.

    Returns:
        (B, heads, cells, D), cells in row-major order.
    """
    batch, heads, _, dim = x.shape
    # (B, heads, N, D) -> (B * heads, D, H, W) -> (B * heads, D, rows, columns)
    maps = x.transpose(-1, -2).reshape(batch * heads, dim, *grid_size)
    pooled = F.avg_pool2d(maps, pool_size, ceil_mode=True, count_include_pad=False)
    return pooled.flatten(2).transpose(1, 2).reshape(batch, heads, -1, dim)


def cells_of(grid_size: tuple[int, int], pool_size: int) -> Tensor:
    """The pooled cell of each token in row-major order, (H * W,) int64."""
    rows = torch.arange(grid_size[0]) // pool_size
    columns = torch.arange(grid_size[1]) // pool_size
    return (rows[:, None] * pooled_grid(grid_size, pool_size)[1] + columns).flatten()
