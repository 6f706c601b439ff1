"""A camera that turns or travels so that the picture shifts as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from mmvitaccel.core.eventful.motion.estimate import Look, lies_better, look_at, shift_between

MAPS = ("frame", "view")

# A key picture is replaced when this share of it has left the frame.
LEFT = 0.125


class Moved(NamedTuple):
    """Where a frame lies.

    Attributes:
        place: The scene's pixel (down, right) at its top left corner.
        fits: Whether it shows the scene of the frame before; if not, ``place`` is that frame's.
    """

    place: tuple[int, int]
    fits: bool


class Motion(Protocol):
    """Says where a camera looks. It holds options; what it remembers is the stream's.

    Attributes:
        reach: Share of the picture by which the view may leave the place where it began.
        maps: Where the model's tokens are given: on the patches of the ``frame``, or of the
            ``view``.
    """

    reach: float
    maps: str

    def start(self, picture: Tensor) -> Any:
        """A scene begins with a picture (1, channels, height, width), at place (0, 0).

        Returns:
            What :meth:`follow` is to be given: any plain object.
        """

    def follow(self, track: Any, picture: Tensor) -> Moved:
        """A later picture; ``track`` is changed in place."""


@dataclass(frozen=True)
class OnView:
    """Another motion, with tokens given on the view: what a whole detector reads.

    Attributes:
        base: Says where the camera looks.
        maps: ``view``.
    """

    base: Motion
    maps: str = "view"

    @property
    def reach(self) -> float:
        """That of the other."""
        return self.base.reach

    def start(self, picture: Tensor) -> Any:
        """See :class:`Motion`."""
        return self.base.start(picture)

    def follow(self, track: Any, picture: Tensor) -> Moved:
        """See :class:`Motion`."""
        return self.base.follow(track, picture)


@dataclass
class Track:
    """What a stream remembers of its camera.

    Attributes:
        key: The picture to which others are compared, so that errors do not add up.
        key_place: Where it lies.
        last: The last picture.
        last_place: Where that lies.
    """

    key: Look
    key_place: tuple[int, int]
    last: Look
    last_place: tuple[int, int]


@dataclass(frozen=True)
class Translation:
    """Follow shifts of the whole picture, found by phase correlation.

    A frame is compared with a key picture, so that errors do not add up; where that does not fit,
    with the frame before. It moves by whole pixels, and only where it then lies better on that
    picture than where it was: something large that moves before a fixed camera does not move the
    scene. A zoom, a rotation, or near and far things that move by different amounts fit less the
    larger they are.

    Attributes:
        smallest_fit: Below this height of the peak, from 0 to 1, a frame does not show the scene
            of the one before. Pictures of different scenes lie below the default, consecutive
            frames of real videos above it.
        reach: Share of the picture's height or width by which the view may leave the place where
            it began, for tokens keep the positions with which they were computed. Then a frame is
            computed whole, and all begins anew.
        maps: ``frame``: the model gives its tokens on the patches of the frame, interpolated.
            ``view``: on the patches as they lie on the scene, as they were computed; what is read
            of them, a map of pixels or boxes, is to be moved by ``-camera.beyond`` pixels.

    Raises:
        ValueError: One of them is outside of its range or not known.
    """

    smallest_fit: float = 0.2
    reach: float = 0.25
    maps: str = "frame"

    def __post_init__(self) -> None:
        for name in ("smallest_fit", "reach"):
            value = getattr(self, name)
            if not 0 < value < 1:
                raise ValueError(f"Translation: {name}={value!r} must be above 0 and below 1.")
        if self.maps not in MAPS:
            raise ValueError(f"Translation: maps={self.maps!r} must be one of {', '.join(MAPS)}.")

    def start(self, picture: Tensor) -> Track:
        """See :class:`Motion`."""
        look = look_at(picture)
        return Track(look, (0, 0), look, (0, 0))

    def follow(self, track: Track, picture: Tensor) -> Moved:
        """See :class:`Motion`; waits for the device."""
        look, size = look_at(picture), picture.shape[-2:]
        other, origin = track.key, track.key_place
        shift = shift_between(look, other)
        if not shift.fit >= self.smallest_fit and track.last is not track.key:
            other, origin = track.last, track.last_place
            shift = shift_between(look, other)
        fits, place = shift.fit >= self.smallest_fit, track.last_place
        if fits:
            stay = (place[0] - origin[0], place[1] - origin[1])
            step = (round(shift.down), round(shift.right))
            if step != stay and lies_better(look, other, step, stay):
                place = (origin[0] + step[0], origin[1] + step[1])
        far = any(
            abs(now - then) > LEFT * side for now, then, side in zip(place, track.key_place, size)
        )
        if far or other is not track.key or not fits:
            track.key, track.key_place = look, place
        track.last, track.last_place = look, place
        return Moved(place, fits)
