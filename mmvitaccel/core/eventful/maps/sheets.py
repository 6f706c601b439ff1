"""Maps that are remembered, their channels last, so that a pixel is a row.

Shapes: B batch; h, w of the map, D channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mmvitaccel.core.eventful.maps.rows import Rows, corners


@dataclass
class Sheet:
    """A remembered map.

    Attributes:
        padded: (B, h + 2, w + 2, D), with a border of zeros; (B, h, w, D) where ``border`` is 0.
        border: 1, or 0 for a map that is not convolved.
        changed: (B, h, w) bool, the pixels that are new in this frame; None where all are.
        at_most: A number, known to the host, that no batch entry's changed pixels exceed.
        read_as: What its numbers are converted to whenever they are read; None where they are kept
            as they were computed.
    """

    padded: Tensor
    border: int
    changed: Tensor | None = None
    at_most: int = 0
    read_as: torch.dtype | None = None

    @classmethod
    def of(cls, x: Tensor, border: int) -> Sheet:
        """A map (B, D, h, w), all of which is new; its memory is the sheet's own."""
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
        """Numbers of the sheet as they go into a computation."""
        return x if self.read_as is None else x.to(self.read_as)

    def places(self, rows: Tensor, side: int = 1) -> Tensor:
        """Where squares of ``side`` pixels, (M,) rows of their grid, lie: (M,) of :attr:`rows`."""
        height, width = self.size
        at = corners(rows, (height // side, width // side), side, self.padded)
        return at + self.border * (self.padded.shape[2] + 1)

    def put(self, rows: Rows, values: Tensor) -> None:
        """Write values (M, D) of pixels; those that only fill up stay as they were."""
        places = self.places(rows.index)
        self.rows.index_copy_(0, places, rows.keep(values, self.rows, places))

    def put_all(self, x: Tensor, rows: Rows) -> None:
        """Take the changed pixels, which ``rows`` hold, of a whole map (B, h, w, D)."""
        pixels = self.pixels
        if rows.chosen is None and len(rows.index) == pixels[..., 0].numel():
            pixels.copy_(x)
        else:
            pixels.copy_(torch.where(self.changed.unsqueeze(3), x.to(pixels.dtype), pixels))

    def become(self, changed: Tensor | None, at_most: int) -> None:
        """Note what is new in this frame."""
        self.changed, self.at_most = changed, min(at_most, self.size[0] * self.size[1])


class Sheets(dict[str, Sheet]):
    """The maps of a chain of steps, by name.

    Attributes:
        between: The dtype in which maps that only another convolution reads are kept; None for that
            in which they are computed. Set it before the first of them is made.
    """

    between: torch.dtype | None = None
