"""A ring buffer in two dimensions: a view that moves over a scene without copying memory.

Cell (y, x) of the scene is stored in slot (y mod H, x mod W) of H x W slots. A view of H x W cells
then has one slot for each of its cells, wherever it is. When it moves, cells that enter the view
take the slots of those that leave it; all other cells stay in place, at no cost. Cells are pixels
or tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Ring:
    """The size of the view, and its position in the scene.

    Attributes:
        size: (H, W) in cells.
        first: Cell (y, x) of the scene at the view's top left corner.
    """

    size: tuple[int, int]
    first: tuple[int, int] = (0, 0)

    @property
    def at_rest(self) -> bool:
        """Whether the view is at its origin, where slots are in the order of the view."""
        return self.first == (0, 0)

    def times(self, factor: int) -> Ring:
        """The same view in cells that are smaller by a factor per side."""
        return Ring(
            tuple(side * factor for side in self.size), tuple(y * factor for y in self.first)
        )

    def cells(self, axis: int, device: torch.device) -> Tensor:
        """The scene's row (axis 0) or column (1) stored in each row or column of slots, (n,)."""
        first, side = self.first[axis], self.size[axis]
        return (torch.arange(side, device=device) - first) % side + first

    def slots(self, axis: int, cells: Tensor) -> Tensor:
        """The slots' rows or columns of the given rows or columns of the scene, of any shape."""
        return cells % self.size[axis]

    def entered(self, before: Ring, device: torch.device) -> Tensor:
        """The slots that held another cell before, (H, W) bool."""
        rows, columns = (self.cells(axis, device) != before.cells(axis, device) for axis in (0, 1))
        return rows[:, None] | columns

    def entered_slots(self, before: Ring, device: torch.device) -> Tensor:
        """Row-major indices of these slots, (L,) int64."""
        # Their number follows from the positions, so the device is not synchronised
        order = self.entered(before, device).flatten().to(torch.uint8).argsort(descending=True)
        return order[: self.count_entered(before)]

    def count_entered(self, before: Ring) -> int:
        """Number of these slots."""
        kept = 1
        for side, now, then in zip(self.size, self.first, before.first):
            kept *= max(side - abs(now - then), 0)
        return self.size[0] * self.size[1] - kept

    def pieces(self, axis: int, start: int) -> Iterator[tuple[slice, slice]]:
        """The overlap of a frame with the view, as contiguous runs of rows or columns of slots.

        Args:
            axis: 0 for rows, 1 for columns.
            start: Row or column of the scene at the top or left of the frame, which has the size of
                the view.

        Yields:
            A range of slots, and the range of the frame's rows or columns that belong in them.
        """
        first, side = self.first[axis], self.size[axis]
        place, end = max(first, start), min(first, start) + side
        while place < end:
            until = min(end, (place // side + 1) * side)
            slot = place % side
            yield slice(slot, slot + until - place), slice(place - start, until - start)
            place = until
