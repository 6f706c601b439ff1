"""Cells and pixels of a map as rows of the flattened map.

A map (B, height, width, any) is treated as B * height * width rows. Squares of a grid are numbered
in the same way.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mmvitaccel.core.eventful.gates.host_reads import reading_is_free
from mmvitaccel.core.eventful.gates.selection import from_mask


class Rows(NamedTuple):
    """Some rows of a flattened map.

    Attributes:
        index: (M,) int64.
        chosen: (M,) bool, False for padding; None if all rows are chosen.
    """

    index: Tensor
    chosen: Tensor | None

    def keep(self, values: Tensor, memory: Tensor, places: Tensor) -> Tensor:
        """Values (M, D) for chosen rows, the values of ``memory`` at ``places`` for padding."""
        values = values.to(memory.dtype)
        if self.chosen is None:
            return values
        return torch.where(self.chosen[:, None], values, memory.index_select(0, places))

    def split(self, size: int) -> list[Rows]:
        """Split into parts of at most ``size`` rows."""
        parts = self.index.split(size)
        chosen = [None] * len(parts) if self.chosen is None else self.chosen.split(size)
        return [Rows(*part) for part in zip(parts, chosen)]

    def repeated(self, side: int) -> Rows:
        """Repeat for squares side by side, (side, M, side) pixels."""
        if self.chosen is None or side == 1:
            return self
        chosen = self.chosen[None, :, None].expand(side, -1, side).flatten()
        return Rows(self.index, chosen)


def rows_where(mask: Tensor, at_most: int) -> Rows:
    """Rows where a flattened mask (B, ...) is True.

    If reading their number would synchronise with the device, ``at_most`` rows of each batch entry
    are returned, some of which are not chosen.
    """
    flat = mask.flatten(1)
    if reading_is_free(mask.device):
        return Rows(flat.flatten().nonzero()[:, 0], None)
    found = from_mask(flat, min(at_most, flat.shape[1]))
    entry = torch.arange(len(flat), device=mask.device)[:, None]
    chosen = None if found.chosen is None else found.chosen.flatten()
    return Rows((found.index + entry * flat.shape[1]).flatten(), chosen)


def squares_with_any(mask: Tensor, side: int) -> Tensor:
    """(B, H, W) -> (B, H // side, W // side): whether a square has any True."""
    if side == 1:
        return mask
    rows, columns = mask.shape[1] // side, mask.shape[2] // side
    squares = mask[:, : rows * side, : columns * side]
    return squares.unflatten(1, (rows, side)).unflatten(3, (columns, side)).any(4).any(2)


def grown(mask: Tensor, stride: int = 1) -> Tensor:
    """(B, H, W) -> (B, h, w): the pixels whose 3 x 3 neighbourhoods have any True."""
    return F.max_pool2d(mask.float()[:, None], 3, stride=stride, padding=1)[:, 0] > 0


def corners(rows: Tensor, grid: tuple[int, int], side: int, inside: Tensor) -> Tensor:
    """Convert rows of a grid of squares (B, *grid) to the rows of their corners in ``inside``.

    Args:
        rows: (M,) rows of the flattened grid.
        grid: Number of squares along both axes.
        side: Side of a square.
        inside: (B, height, width, any).

    Returns:
        (M,) rows of ``inside`` with its first three axes flattened.
    """
    height, width = grid
    entry = rows.div(height * width, rounding_mode="floor")
    y = rows.div(width, rounding_mode="floor") % height
    return (entry * inside.shape[1] + y * side) * inside.shape[2] + rows % width * side


def offsets(side: int, inside: Tensor) -> Tensor:
    """Offsets (side, side) from a square's corner to its pixels, in rows of ``inside``."""
    steps = torch.arange(side, device=inside.device)
    return steps[:, None] * inside.shape[2] + steps
