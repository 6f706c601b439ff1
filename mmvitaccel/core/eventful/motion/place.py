"""The position of a stream's view and frame in its scene, for parts behind the backbone."""

from __future__ import annotations

from typing import NamedTuple


class Place(NamedTuple):
    """The position of a frame and of the view in the scene.

    Attributes:
        scene: Unique number of the scene.
        grid: (H, W) of the view, in tokens.
        first: Row and column, in tokens of the scene, of the view's top left corner.
        offset: Pixel (y, x) of the scene at the frame's top left corner.
        patch_size: Side of a token in pixels.
    """

    scene: int
    grid: tuple[int, int]
    first: tuple[int, int]
    offset: tuple[int, int]
    patch_size: int

    @property
    def corner(self) -> tuple[int, int]:
        """Pixel (y, x) of the scene at the view's top left corner."""
        return self.first[0] * self.patch_size, self.first[1] * self.patch_size

    @property
    def beyond(self) -> tuple[int, int]:
        """Pixels (down, right) from the view's corner to the frame's corner."""
        return self.offset[0] - self.corner[0], self.offset[1] - self.corner[1]

    @property
    def at_rest(self) -> bool:
        """Whether frame and view are at the origin of the scene."""
        return self.first == self.offset == (0, 0)

    def step_from(self, before: Place) -> tuple[int, int]:
        """Rows and columns of tokens (down, right) by which the view moved."""
        return self.first[0] - before.first[0], self.first[1] - before.first[1]
