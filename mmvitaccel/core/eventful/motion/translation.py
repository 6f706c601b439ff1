"""Camera motion that shifts the whole picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from mmvitaccel.arguments import number, one_of
from mmvitaccel.core.eventful.motion.blocks import shared_shift
from mmvitaccel.core.eventful.motion.estimate import Look, lies_better, look_at, shift_between

MAPS = ("frame", "view")

# The key picture is replaced when this share of it has left the frame.
LEFT = 0.125
# How often blocks are asked for their shift: the second time they are nearly in place.
LOOKS = 2


class Moved(NamedTuple):
    """The position of a frame.

    Attributes:
        place: Pixel (down, right) of the scene at the frame's top left corner.
        fits: Whether the frame shows the scene of the previous one; if not, ``place`` is that of
            the previous frame.
    """

    place: tuple[int, int]
    fits: bool


class Motion(Protocol):
    """Estimates where a camera looks. It holds only options; its state belongs to the stream.

    Attributes:
        reach: Share of the picture by which the view may move from its origin.
        maps: Whether the model returns tokens on the patches of the ``frame`` or of the ``view``.
    """

    reach: float
    maps: str

    def start(self, picture: Tensor) -> Any:
        """Start a scene with a picture (1, channels, height, width) at place (0, 0).

        Returns:
            The state for :meth:`follow`, any plain object.
        """

    def follow(self, track: Any, picture: Tensor) -> Moved:
        """Locate a later picture; changes ``track`` in place."""


@dataclass(frozen=True)
class OnView:
    """Wraps another motion so that tokens are returned on the view, as whole detectors need.

    Attributes:
        base: The wrapped motion.
        maps: ``view``.
    """

    base: Motion
    maps: str = "view"

    @property
    def reach(self) -> float:
        """The reach of ``base``."""
        return self.base.reach

    def start(self, picture: Tensor) -> Any:
        """See :class:`Motion`."""
        return self.base.start(picture)

    def follow(self, track: Any, picture: Tensor) -> Moved:
        """See :class:`Motion`."""
        return self.base.follow(track, picture)


@dataclass
class Track:
    """A stream's state of its camera.

    Attributes:
        key: The key picture, with which frames are compared.
        key_place: Its place.
        last: The last picture.
        last_place: Its place.
        moved: Pixels (down, right) to it from the one before.
    """

    key: Look
    key_place: tuple[int, int]
    last: Look
    last_place: tuple[int, int]
    moved: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Translation:
    """Follows shifts of the whole picture, estimated by phase correlation.

    A frame is compared with a key picture, so that errors do not accumulate, or with the previous
    frame if the key picture does not fit. Shifts are whole pixels. A shift is accepted only if it
    reduces the difference to the compared picture, so that a large object in front of a fixed
    camera does not move the scene. It is then corrected to that which most blocks of the picture
    share, so that an object in the middle that the camera follows does not hold the scene. In a
    zoom, a rotation or a parallax few blocks share one, and the frame does not fit.

    Attributes:
        smallest_fit: Least height of the peak, from 0 to 1, at which a frame shows the scene of the
            previous one. Pictures of different scenes lie below the default, consecutive frames of
            real videos above it.
        smallest_share: Least share of the picture's blocks, from 0 to 1, that move by the same
            shift, to a fifth of a pixel in a picture of 112 pixels or to a fifth of the shift.
        reach: Share of the picture's height or width by which the view may move from its origin,
            because tokens keep the positions with which they were computed. Beyond it, a frame is
            computed whole and becomes the new origin.
        maps: ``frame``: the model returns its tokens on the patches of the frame, interpolated.
            ``view``: on the patches of the view, as they were computed; the caller has to move
            results, a map of pixels or boxes, by ``-camera.beyond`` pixels.

    Raises:
        ValueError: A value is out of range or unknown.
    """

    smallest_fit: float = 0.2
    smallest_share: float = 0.4
    reach: float = 0.25
    maps: str = "frame"

    def __post_init__(self) -> None:
        for name in ("smallest_fit", "smallest_share", "reach"):
            value = number("Translation", name, getattr(self, name), above=0, below=1)
            object.__setattr__(self, name, value)
        one_of("Translation", "maps", self.maps, MAPS)

    def start(self, picture: Tensor) -> Track:
        """See :class:`Motion`."""
        look = look_at(picture)
        return Track(look, (0, 0), look, (0, 0))

    def follow(self, track: Track, picture: Tensor) -> Moved:
        """See :class:`Motion`; synchronises with the device."""
        look, size, place = look_at(picture), picture.shape[-2:], track.last_place
        other, origin = track.key, track.key_place
        step = self._step(look, other, _minus(place, origin), track.moved)
        if step is None and track.last is not track.key:
            other, origin = track.last, track.last_place
            step = self._step(look, other, (0, 0), track.moved)
        if step is not None:
            place = _plus(origin, step)
        track.moved = _minus(place, track.last_place)
        far = any(
            abs(now - then) > LEFT * side for now, then, side in zip(place, track.key_place, size)
        )
        if far or other is not track.key or step is None:
            track.key, track.key_place = look, place
        track.last, track.last_place = look, place
        return Moved(place, step is not None)

    def _step(
        self, now: Look, then: Look, stay: tuple[int, int], moved: tuple[int, int]
    ) -> tuple[int, int] | None:
        """Pixels (down, right) from an earlier picture to the current one; None if none fits.

        Args:
            now: The current picture.
            then: The earlier picture.
            stay: The step if the camera stands still.
            moved: How the camera moved in the frame before.
        """
        shift = shift_between(now, then)
        if not shift.fit >= self.smallest_fit:
            return None
        step = stay
        for other in ((round(shift.down), round(shift.right)), _plus(stay, moved)):
            if other != step and lies_better(now, then, other, step):
                step = other
        for _ in range(LOOKS):
            shared = shared_shift(now, then, step)
            if shared.share < self.smallest_share:
                return None
            further = _plus(step, (round(shared.down), round(shared.right)))
            if further == step or not lies_better(now, then, further, step):
                break
            step = further
        return step


def _plus(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    return a[0] + b[0], a[1] + b[1]


def _minus(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    return a[0] - b[0], a[1] - b[1]
