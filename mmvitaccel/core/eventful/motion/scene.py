"""The scene of a stream: its frames are shifted so that patches stay on what they show.

Patches are aligned with the scene, not with the frame. The view has the size of a frame and moves
by whole patches when a frame is a whole patch further, so new rows and columns are completely
visible. The part of the view that a frame does not cover, less than a patch at an edge, keeps the
pixels last seen there. Tokens are stored in a :class:`~mmvitaccel.core.eventful.motion.ring.Ring`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from mmvitaccel.core.eventful.motion.place import Place
from mmvitaccel.core.eventful.motion.ring import Ring
from mmvitaccel.core.eventful.motion.translation import Motion

_NUMBERS = itertools.count()

# Share of a frame's budget that is saved while the view stays; at most one budget is saved.
SAVED = 0.2


class Scene:
    """State of a stream's scene.

    Args:
        motion: Estimates the camera's position.
        picture: The first frame (1, channels, height, width), a multiple of the patch size.
        patch_size: Side of a patch in pixels.

    Attributes:
        patch_size: Side of a patch in pixels.
        ring: Position of the view in tokens.
        before: Position of the view in the previous frame.
        offset: Pixel (y, x) of the scene at the frame's top left corner.
        moved: Movement in pixels (down, right) since the previous frame.
        fits: Whether the frame shows the scene of the previous one.
        anew: Whether the scene restarted with this frame, which is then computed completely.
        saved: Tokens saved for the next frame in which the view moves.
    """

    def __init__(self, motion: Motion, picture: Tensor, patch_size: int) -> None:
        height, width = picture.shape[-2:]
        self._motion, self.patch_size = motion, patch_size
        self._number = next(_NUMBERS)
        self.ring = self.before = Ring((height // patch_size, width // patch_size))
        self._picture = picture.clone()
        self._correction: Tensor | None = None
        self._begin(picture)
        self.moved, self.fits, self.anew = (0, 0), True, False

    def _begin(self, picture: Tensor) -> None:
        """Move the view to a frame."""
        self.ring = Ring(self.ring.size)
        self.offset = (0, 0)
        self._track = self._motion.start(picture)
        self._correction, self.saved = None, 0

    def begin_anew(self, picture: Tensor) -> Tensor:
        """Restart the scene with a later frame; returns the frame."""
        self.before = self.ring
        self._begin(picture)
        self._picture.copy_(picture)
        self.moved, self.fits, self.anew = (0, 0), True, True
        return picture

    def follow(self, picture: Tensor) -> Tensor:
        """Place a later frame of the same shape on the view; returns the view in slot order.

        The returned tensor belongs to the scene and changes with the next frame.
        """
        self.before, self.anew = self.ring, False
        place, self.fits = self._motion.follow(self._track, picture)
        self.moved = (place[0] - self.offset[0], place[1] - self.offset[1])
        self.offset = place
        first = tuple(
            _first(now, then, self.patch_size) for now, then in zip(self.offset, self.ring.first)
        )
        if any(
            abs(cells) > self._motion.reach * side for cells, side in zip(first, self.ring.size)
        ):
            moved = self.moved
            self.begin_anew(picture)
            self.moved = moved
            return picture
        if first != self.ring.first:
            self.ring, self._correction = Ring(self.ring.size, first), None
        return self._seen(picture)

    def _seen(self, picture: Tensor) -> Tensor:
        """The frame at its position, surrounded by the pixels last seen there."""
        view = self.ring.times(self.patch_size)
        if view.at_rest and self.offset == (0, 0):
            self._picture.copy_(picture)
            return picture
        if not self.fits or self.ring != self.before:
            fresh = self._continued(picture, view)
            if self.fits:
                entered = view.entered(self.before.times(self.patch_size), picture.device)
                fresh = torch.where(entered, fresh, self._picture)
            self._picture = fresh
        for slots_y, rows in view.pieces(0, self.offset[0]):
            for slots_x, columns in view.pieces(1, self.offset[1]):
                self._picture[..., slots_y, slots_x] = picture[..., rows, columns]
        return self._picture

    def _continued(self, picture: Tensor, view: Ring) -> Tensor:
        """The view on a frame with replicated edges, in slot order."""
        for axis in (0, 1):
            cells = view.cells(axis, picture.device) - self.offset[axis]
            picture = picture.index_select(axis + 2, cells.clamp(0, view.size[axis] - 1))
        return picture

    def entered(self, device: torch.device) -> Tensor | None:
        """Slots of tokens that are new in the view, (H * W,) bool; None if there are none."""
        if self.anew or self.ring == self.before:
            return None
        return self.ring.entered(self.before, device).flatten()

    def budget(self, k: int, num_tokens: int) -> int:
        """Number of tokens that pass in this frame, for a mean of k per frame.

        When the view moves, more tokens change than the new ones, because windows at all four edges
        change. Frames in which the view stays while the camera moves therefore save tokens. With a
        camera at rest, every frame has k.

        Args:
            k: Mean number of tokens per frame.
            num_tokens: Number of all tokens.
        """
        if self.anew or not self.fits or self.moved == (0, 0):
            return k
        if self.ring == self.before:
            less = min(int(SAVED * k), k - self.saved)
            self.saved += less
            return k - less
        more, self.saved = min(self.saved, num_tokens - k), 0
        return k + more

    def corrected(self, x: Tensor, positions: Callable[[], Tensor | None]) -> Tensor:
        """Correct the position embeddings of tokens to their places in the scene.

        Args:
            x: (1, N, C), with the grid's tokens last, and the position embeddings of their slots.
            positions: Function that returns the position embeddings of the grid (1, H * W, C), or
                None; called when the view has moved.

        Returns:
            (1, N, C); ``x`` itself while the view is at its origin. Tokens beyond the position
            embeddings get those of the nearest edge.
        """
        if self.ring.at_rest:
            return x
        if self._correction is None:
            table = positions()
            if table is None:
                return x
            grid = table.unflatten(1, self.ring.size)
            moved = grid
            for axis in (0, 1):
                cells = self.ring.cells(axis, x.device).clamp(0, self.ring.size[axis] - 1)
                moved = moved.index_select(axis + 1, cells)
            self._correction = (moved - grid).flatten(1, 2).to(x.dtype)
        prefix = x.shape[1] - self._correction.shape[1]
        return torch.cat((x[:, :prefix], x[:, prefix:] + self._correction), 1)

    @property
    def beyond(self) -> tuple[int, int]:
        """Offset in pixels (down, right) of the frame from the output of :meth:`given`."""
        if self._motion.maps == "frame":
            return (0, 0)
        return tuple(
            now - cell * self.patch_size for now, cell in zip(self.offset, self.ring.first)
        )

    @property
    def place(self) -> Place | None:
        """Position of the view for later parts if they get maps of the view; None otherwise."""
        if self._motion.maps == "frame":
            return None
        return Place(self._number, self.ring.size, self.ring.first, self.offset, self.patch_size)

    def given(self, x: Tensor) -> Tensor:
        """Output tokens of the model, on the patches of the frame or of the view.

        Args:
            x: (1, N, C), with the grid's tokens last, in slot order.

        Returns:
            (1, N, C), interpolated between neighbouring tokens; beyond the view, its edge.
        """
        start = tuple(now - left for now, left in zip(self.offset, self.beyond))
        if self.ring.at_rest and start == (0, 0):
            return x
        prefix = x.shape[1] - self.ring.size[0] * self.ring.size[1]
        grid = x[:, prefix:].unflatten(1, self.ring.size)
        for axis in (0, 1):
            whole, part = divmod(start[axis], self.patch_size)
            near = grid.index_select(axis + 1, self._slots(axis, whole, x.device))
            if part:
                far = grid.index_select(axis + 1, self._slots(axis, whole + 1, x.device))
                near = torch.lerp(near, far, part / self.patch_size)
            grid = near
        return torch.cat((x[:, :prefix], grid.flatten(1, 2)), 1)

    @property
    def tokens_off(self) -> tuple[int, int]:
        """Offset of slots from the nearest patch of the frame, in rows and columns."""
        return tuple(round(pixels / self.patch_size) for pixels in self.offset)

    @property
    def tokens_were_off(self) -> tuple[int, int]:
        """The same for the previous frame."""
        return tuple(
            round((now - by) / self.patch_size) for now, by in zip(self.offset, self.moved)
        )

    def order(self, device: torch.device) -> Tensor | None:
        """The slot nearest to each patch of the frame, (H * W,); None if slots are in order."""
        if self.ring.at_rest and self.offset == (0, 0):
            return None
        rows, columns = (
            self._slots(axis, start, device) for axis, start in enumerate(self.tokens_off)
        )
        return (rows[:, None] * self.ring.size[1] + columns).flatten()

    def _slots(self, axis: int, start: int, device: torch.device) -> Tensor:
        """Slots of the cells from ``start`` on that are in view, (n,)."""
        first, side = self.ring.first[axis], self.ring.size[axis]
        cells = torch.arange(start, start + side, device=device)
        return self.ring.slots(axis, cells.clamp(first, first + side - 1))


def _first(offset: int, first: int, patch_size: int) -> int:
    """First cell of a view, from that of the previous frame and the frame's offset in pixels."""
    if offset - first * patch_size >= patch_size:
        return offset // patch_size
    if offset - first * patch_size <= -patch_size:
        return -(-offset // patch_size)
    return first
