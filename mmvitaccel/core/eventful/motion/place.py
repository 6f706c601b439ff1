"""Where a stream's view and frame lie, for the parts of a model behind its backbone."""

from __future__ import annotations

from typing import NamedTuple


class Place(NamedTuple):
    """Of one frame.

    Attributes:
        scene: Number of the scene, which no other one has.
        grid: (H, W) of the view, in tokens.
        first: The scene's row and column of tokens at the view's top left corner.
        offset: The scene's pixel (y, x) at the frame's top left corner.
        patch_size: Pixels a side of a token.
    """

    scene: int
    grid: tuple[int, int]
    first: tuple[int, int]
    offset: tuple[int, int]
    patch_size: int

    @property
    def corner(self) -> tuple[int, int]:
        """The scene's pixel (y, x) at the view's top left corner."""
        return self.first[0] * self.patch_size, self.first[1] * self.patch_size

    @property
    def beyond(self) -> tuple[int, int]:
        """Pixels (down, right) by which the frame lies further than the view."""
        return self.offset[0] - self.corner[0], self.offset[1] - self.corner[1]

    @property
    def at_rest(self) -> bool:
        """Whether frame and view lie where the scene began."""
        return self.first == self.offset == (0, 0)

    def step_from(self, before: Place) -> tuple[int, int]:
        """Rows and columns of tokens (down, right) by which the view moved."""
        return self.first[0] - before.first[0], self.first[1] - before.first[1]
