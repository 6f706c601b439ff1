"""Stored maps with channels last, so that a pixel is a row.

Shapes: B batch; h, w of the map, D channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mmvitaccel.core.eventful.maps.held import Held
from mmvitaccel.core.eventful.maps.rows import Rows, corners


@dataclass
class Sheet:
    """A stored map.

    Attributes:
        padded: (B, h + 2, w + 2, D) with a border of zeros, or (B, h, w, D) if ``border`` is 0.
        border: 1, or 0 for a map without a convolution.
        changed: (B, h, w) bool, the pixels that are new in this frame; None if all are.
        at_most: Upper bound, known to the host, of the changed pixels per batch entry.
        moved: Pixels (down, right) by which the view moved before this frame.
        read_as: Dtype to which values are converted when read; None if they are stored in the dtype
            of the computation.
        held: Statistics of the preceding GroupNorm, if there is one.
    """

    padded: Tensor
    border: int
    changed: Tensor | None = None
    at_most: int = 0
    moved: tuple[int, int] = (0, 0)
    read_as: torch.dtype | None = None
    held: Held | None = None

    @classmethod
    def of(cls, x: Tensor, border: int) -> Sheet:
        """Copy a map (B, D, h, w) into a new sheet in which all pixels are new."""
        x = x.permute(0, 2, 3, 1)
        if border:
            padded = F.pad(x, (0, 0, border, border, border, border))
            return cls(padded.contiguous(), border)
        return cls(x.clone(memory_format=torch.contiguous_format), border)

    @property
    def size(self) -> tuple[int, int]:
        """(h, w)."""
        height, width = self.padded.shape[1:3]
        return height - 2 * self.border, width - 2 * self.border

    @property
    def channels(self) -> int:
        """D."""
        return self.padded.shape[3]

    @property
    def pixels(self) -> Tensor:
        """(B, h, w, D), a view."""
        if not self.border:
            return self.padded
        return self.padded[:, self.border : -self.border, self.border : -self.border]

    @property
    def map(self) -> Tensor:
        """(B, D, h, w), a view."""
        return self.pixels.permute(0, 3, 1, 2)

    @property
    def rows(self) -> Tensor:
        """(B * (h + 2) * (w + 2), D), a view."""
        return self.padded.view(-1, self.padded.shape[3])

    def read(self, x: Tensor) -> Tensor:
        """Convert values of the sheet to the dtype of the computation."""
        return x if self.read_as is None else x.to(self.read_as)

    def places(self, rows: Tensor, side: int = 1) -> Tensor:
        """Rows (M,) in :attr:`rows` of squares of ``side`` pixels, given as rows of their grid."""
        height, width = self.size
        at = corners(rows, (height // side, width // side), side, self.padded)
        return at + self.border * (self.padded.shape[2] + 1)

    def put(self, rows: Rows, values: Tensor) -> None:
        """Write values (M, D) of pixels; padding is not written."""
        places = self.places(rows.index)
        self.rows.index_copy_(0, places, rows.keep(values, self.rows, places))

    def put_all(self, x: Tensor, rows: Rows) -> None:
        """Copy the changed pixels ``rows`` from a complete map (B, h, w, D)."""
        pixels = self.pixels
        if rows.chosen is None and len(rows.index) == pixels[..., 0].numel():
            pixels.copy_(x)
        else:
            pixels.copy_(torch.where(self.changed.unsqueeze(3), x.to(pixels.dtype), pixels))

    def step_of(self, cells: tuple[int, int], grid: tuple[int, int]) -> tuple[int, int] | None:
        """Rows and columns of the map for a step of the view.

        Args:
            cells: The step in cells (down, right).
            grid: (H, W) of the view in cells.

        Returns:
            None if the map would not move by whole pixels.
        """
        step = []
        for side, by, whole in zip(self.size, cells, grid):
            fits = (side % whole == 0 or whole % side == 0) and by * side % whole == 0
            if by and not fits:
                return None
            step.append(by * side // whole if by else 0)
        return tuple(step)

    def move(self, step: tuple[int, int]) -> None:
        """Follow a movement of the view; new pixels have old values until they are computed."""
        self.moved = step
        if step != (0, 0):
            self.pixels.copy_(self.pixels.roll((-step[0], -step[1]), (1, 2)))

    def entered(self) -> Tensor:
        """The pixels that are new in the view, (h, w) bool."""
        rows, columns = (
            _ends(side, by, self.padded.device) for side, by in zip(self.size, self.moved)
        )
        return rows[:, None] | columns

    def count_entered(self) -> int:
        """Number of these pixels."""
        height, width = self.size
        kept = max(height - abs(self.moved[0]), 0) * max(width - abs(self.moved[1]), 0)
        return height * width - kept

    def beside_edges(self) -> Tensor:
        """The pixels next to an edge whose outside was in view before, (h, w) bool."""
        rows, columns = (
            _ends(side, (by < 0) - (by > 0), self.padded.device)
            for side, by in zip(self.size, self.moved)
        )
        return rows[:, None] | columns

    def become(self, changed: Tensor | None, at_most: int) -> None:
        """Set the pixels that are new in this frame."""
        self.changed, self.at_most = changed, min(at_most, self.size[0] * self.size[1])


def _ends(side: int, count: int, device: torch.device) -> Tensor:
    """The last ``count`` of ``side`` pixels, or the first for a negative count, (side,) bool."""
    places = torch.arange(side, device=device)
    return places >= side - count if count >= 0 else places < -count


class Sheets(dict[str, Sheet]):
    """The maps of a chain of steps, by name.

    Attributes:
        between: Dtype of maps that only another convolution reads; None for the dtype of the
            computation. Must be set before the first of them is created.
        anew: Whether the current frame is computed completely, so that a GroupNorm uses its
            statistics.
    """

    between: torch.dtype | None = None
    anew: bool = False

    def move(self, cells: tuple[int, int], grid: tuple[int, int]) -> None:
        """Follow a movement of the view by whole cells; see :meth:`Sheet.step_of`.

        A map that would not move by whole pixels is dropped and recomputed completely.
        """
        for name, sheet in list(self.items()):
            step = sheet.step_of(cells, grid)
            if step is None:
                del self[name]
            else:
                sheet.move(step)
