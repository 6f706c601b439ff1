"""A view that moves over a scene, in memory that does not move.

The scene's cell (y, x) lies in the slot (y mod H, x mod W) of a memory of H x W slots. A view of
H x W cells then has a slot for each of its cells, wherever it is; where it moves on, the cells that
come into view take the slots of those that leave it, and all others stay where they are, bit by
bit and at no cost. Cells are pixels or tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Ring:
    """The slots, and where the view is.

    Attributes:
        size: (H, W).
        first: The scene's cell (y, x) at the view's top left corner.
    """

    size: tuple[int, int]
    first: tuple[int, int] = (0, 0)

    @property
    def at_rest(self) -> bool:
        """Whether slots are in the order of the view, which then is where it began."""
        return self.first == (0, 0)

    def times(self, factor: int) -> Ring:
        """The same in smaller cells, so many to a side."""
        return Ring(
            tuple(side * factor for side in self.size), tuple(y * factor for y in self.first)
        )

    def cells(self, axis: int, device: torch.device) -> Tensor:
        """The scene's row (axis 0) or column (1) that lies in each row or column of slots, (n,)."""
        first, side = self.first[axis], self.size[axis]
        return (torch.arange(side, device=device) - first) % side + first

    def slots(self, axis: int, cells: Tensor) -> Tensor:
        """The row or column of slots of some of the scene's, of any shape."""
        return cells % self.size[axis]

    def entered(self, before: Ring, device: torch.device) -> Tensor:
        """The slots that held another cell before, (H, W) bool."""
        rows, columns = (self.cells(axis, device) != before.cells(axis, device) for axis in (0, 1))
        return rows[:, None] | columns

    def entered_slots(self, before: Ring, device: torch.device) -> Tensor:
        """Their numbers in row-major order, (L,) int64."""
        # reason: how many they are is known here, and the device need not be asked
        order = self.entered(before, device).flatten().to(torch.uint8).argsort(descending=True)
        return order[: self.count_entered(before)]

    def count_entered(self, before: Ring) -> int:
        """How many these are."""
        kept = 1
        for side, now, then in zip(self.size, self.first, before.first):
            kept *= max(side - abs(now - then), 0)
        return self.size[0] * self.size[1] - kept

    def pieces(self, axis: int, start: int) -> Iterator[tuple[slice, slice]]:
        """What a frame shows of the view, in runs of rows or columns of slots.

        Args:
            axis: 0 for rows, 1 for columns.
            start: The scene's row or column at the top or left of the frame, which is as large as
                the view.

        Yields:
            Slots, and the frame's own rows or columns that belong into them.
        """
        first, side = self.first[axis], self.size[axis]
        place, end = max(first, start), min(first, start) + side
        while place < end:
            until = min(end, (place // side + 1) * side)
            slot = place % side
            yield slice(slot, slot + until - place), slice(place - start, until - start)
            place = until
