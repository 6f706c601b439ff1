"""The scene of a stream: its frames, moved so that patches stay on what they show.

Patches lie on the scene, not on the frame. The view is as large as a frame and moves by whole
patches, when a frame has gone a whole patch further; so a row or column that comes into view is
seen in full. What a frame does not show of the view, less than a patch at its edge, is what was
last seen there. The memory of tokens is a :class:`~mmvitaccel.core.eventful.motion.ring.Ring`.
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

# Of the budget of a frame, the share that is saved while the view stays; at most a whole budget is.
SAVED = 0.2


class Scene:
    """What a stream remembers of its scene.

    Args:
        motion: Says where the camera looks.
        picture: The first frame, (1, channels, height, width), of whole patches.
        patch_size: Pixels a side of a patch.

    Attributes:
        patch_size: Pixels a side of a patch.
        ring: Where the view is, in tokens.
        before: Where it was in the frame before.
        offset: The scene's pixel (y, x) at the frame's top left corner.
        moved: Pixels (down, right) since the frame before.
        fits: Whether the frame shows the scene of the one before.
        anew: Whether all began anew with this frame, which is then computed whole.
        saved: Tokens that frames have left to the next one in which the view moves.
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
        """Put the view on a frame."""
        self.ring = Ring(self.ring.size)
        self.offset = (0, 0)
        self._track = self._motion.start(picture)
        self._correction, self.saved = None, 0

    def begin_anew(self, picture: Tensor) -> Tensor:
        """Let a later frame be one with which all begins anew; it comes back."""
        self.before = self.ring
        self._begin(picture)
        self._picture.copy_(picture)
        self.moved, self.fits, self.anew = (0, 0), True, True
        return picture

    def follow(self, picture: Tensor) -> Tensor:
        """A later frame, of the same shape, as the model is to see it: on the view, slot by slot.

        It belongs to the scene, and changes with the next frame.
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
        """The frame in its place, and around it what was last seen."""
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
        """The view on a frame whose edges go on for ever, slot by slot."""
        for axis in (0, 1):
            cells = view.cells(axis, picture.device) - self.offset[axis]
            picture = picture.index_select(axis + 2, cells.clamp(0, view.size[axis] - 1))
        return picture

    def entered(self, device: torch.device) -> Tensor | None:
        """The slots of tokens that came into view, (H * W,) bool; None where none did."""
        if self.anew or self.ring == self.before:
            return None
        return self.ring.entered(self.before, device).flatten()

    def budget(self, k: int, num_tokens: int) -> int:
        """Tokens that pass in this frame out of k a frame.

        When the view moves, more tokens change than those that come into it: windows lose and win
        some, at all four edges. Frames in which it stays while the camera moves save for those.
        Of a camera that stands still, every frame has k.

        Args:
            k: Of a frame.
            num_tokens: That there are.
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
        """Tokens with the positions that belong to their places in the scene.

        Args:
            x: (1, N, C), tokens of the grid last, with the positions of their slots.
            positions: Gives the absolute positions of the grid (1, H * W, C), or None; asked when
                the view has moved.

        Returns:
            (1, N, C); ``x`` itself as long as the view is where it began. A token beyond the
            positions that there are has those of the nearest edge.
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
        """Pixels by which the frame lies further down and right than what :meth:`given` gives."""
        if self._motion.maps == "frame":
            return (0, 0)
        return tuple(
            now - cell * self.patch_size for now, cell in zip(self.offset, self.ring.first)
        )

    @property
    def place(self) -> Place | None:
        """What parts behind are to know, which are given maps of the view; None of the frame's."""
        if self._motion.maps == "frame":
            return None
        return Place(self._number, self.ring.size, self.ring.first, self.offset, self.patch_size)

    def given(self, x: Tensor) -> Tensor:
        """Tokens as the model gives them, on the patches of the frame or of the view.

        Args:
            x: (1, N, C), tokens of the grid last, slot by slot.

        Returns:
            (1, N, C), interpolated between the tokens around; beyond the view its edge.
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
        """Rows and columns of slots by which tokens lie further than the frame's nearest patch."""
        return tuple(round(pixels / self.patch_size) for pixels in self.offset)

    @property
    def tokens_were_off(self) -> tuple[int, int]:
        """The same of the frame before."""
        return tuple(
            round((now - by) / self.patch_size) for now, by in zip(self.offset, self.moved)
        )

    def order(self, device: torch.device) -> Tensor | None:
        """The slot nearest to each patch of the frame, (H * W,); None where slots are in order."""
        if self.ring.at_rest and self.offset == (0, 0):
            return None
        rows, columns = (
            self._slots(axis, start, device) for axis, start in enumerate(self.tokens_off)
        )
        return (rows[:, None] * self.ring.size[1] + columns).flatten()

    def _slots(self, axis: int, start: int, device: torch.device) -> Tensor:
        """Slots of the cells from ``start`` on, as far as they are in view, (n,)."""
        first, side = self.ring.first[axis], self.ring.size[axis]
        cells = torch.arange(start, start + side, device=device)
        return self.ring.slots(axis, cells.clamp(first, first + side - 1))


def _first(offset: int, first: int, patch_size: int) -> int:
    """The first cell of a view, by that of the frame before and the frame's offset in pixels."""
    if offset - first * patch_size >= patch_size:
        return offset // patch_size
    if offset - first * patch_size <= -patch_size:
        return -(-offset // patch_size)
    return first
