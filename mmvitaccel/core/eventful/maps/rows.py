"""Which cells and pixels of a map, and where they lie when the map is rows.

A map (B, height, width, any) is looked at as B * height * width rows; squares of a grid are
numbered in the same way.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from mmvitaccel.core.eventful.gates.host_reads import reading_is_free
from mmvitaccel.core.eventful.gates.selection import from_mask


def rows_where(mask: Tensor, at_most: int) -> Tensor:
    """Where (B, ...) is True, as rows of it flattened.

    Where reading how many there are would wait for the device, ``at_most`` of each entry of the
    batch are given, some of them False; what is computed of those comes out as it was.
    """
    flat = mask.flatten(1)
    if reading_is_free(mask.device):
        return flat.flatten().nonzero()[:, 0]
    index = from_mask(flat, min(at_most, flat.shape[1])).index
    entry = torch.arange(len(flat), device=mask.device)[:, None]
    return (index + entry * flat.shape[1]).flatten()


def squares_with_any(mask: Tensor, side: int) -> Tensor:
    """(B, H, W) -> (B, H // side, W // side): whether a square holds anything True."""
    rows, columns = mask.shape[1] // side, mask.shape[2] // side
    squares = mask[:, : rows * side, : columns * side]
    return squares.unflatten(1, (rows, side)).unflatten(3, (columns, side)).any(4).any(2)


def reached(squares: Tensor, pixels: int) -> Tensor:
    """(B, H, W) squares -> (B, h, w) the pixels with a pixel of one in their neighbourhood."""
    fine = squares.repeat_interleave(pixels, 1).repeat_interleave(pixels, 2)
    return F.max_pool2d(fine.float()[:, None], 3, stride=1, padding=1)[:, 0] > 0


def corners(rows: Tensor, grid: tuple[int, int], side: int, inside: Tensor) -> Tensor:
    """Rows of a grid (B, *grid), of squares, to where their corners lie in ``inside``.

    Args:
        rows: (M,) rows of the flattened grid.
        grid: Squares along both axes.
        side: Of a square.
        inside: (B, height, width, any).

    Returns:
        (M,) rows of ``inside`` with its first three axes as one.
    """
    height, width = grid
    entry = rows.div(height * width, rounding_mode="floor")
    y = rows.div(width, rounding_mode="floor") % height
    return (entry * inside.shape[1] + y * side) * inside.shape[2] + rows % width * side


def offsets(side: int, inside: Tensor) -> Tensor:
    """(side, side) from a square's corner to its places, in the rows of ``inside``."""
    steps = torch.arange(side, device=inside.device)
    return steps[:, None] * inside.shape[2] + steps
