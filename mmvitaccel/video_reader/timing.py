"""Frames, and what to believe of the times and counts that a container gives them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

# reason: above this a header holds a time base (1000, 90000), not a rate; cameras for slow motion
# write files that play at an ordinary rate
MOST_FPS = 480.0
_MOST_FRAMES = 2**31
_MOST_SECONDS = 1e7


@dataclass(frozen=True)
class Frame:
    """One picture of a video.

    Attributes:
        image: (H, W, 3) uint8 RGB, upright.
        index: Number in the source, from 0; a live source's dropped frames are counted.
        seconds: Since the first frame: by time stamp in a file, by arrival of a live source; None
            where neither time stamps nor a rate are known.
    """

    image: np.ndarray
    index: int
    seconds: float | None


class Stamp(NamedTuple):
    """Which frame was grabbed: number in the source, and the container's seconds if it has any."""

    index: int
    seconds: float | None


class Unreadable(Exception):
    """A backend cannot open a source; the message is its reason, or empty."""


class Capture(Protocol):
    """What a backend offers.

    Attributes:
        fps: As the header says.
        count: Frames, as the header says.
        duration: Seconds, as the header says.
        damaged: Packets that could not be decoded so far, where the backend can tell.
    """

    fps: float | None
    count: float | None
    duration: float | None
    damaged: int

    def grab(self) -> Stamp | None:
        """Go to the next frame; None at the end."""

    def picture(self) -> np.ndarray:
        """The grabbed frame, (H, W, 3) uint8 RGB, upright."""

    def close(self) -> None:
        """Let go of the source."""


def known_rate(fps: float | None) -> float | None:
    """A header's frame rate, or None where it is none: zero, negative or a time base."""
    if fps is None or not math.isfinite(fps) or not 0 < fps <= MOST_FPS:
        return None
    return float(fps)


def known_count(count: float | None) -> int | None:
    """A header's number of frames, or None where it is none: negative, zero or absurd."""
    if count is None or not math.isfinite(count) or not 0 < count < _MOST_FRAMES:
        return None
    return int(count)


def known_duration(seconds: float | None) -> float | None:
    """A header's duration, or None where it is none."""
    if seconds is None or not math.isfinite(seconds) or not 0 < seconds < _MOST_SECONDS:
        return None
    return float(seconds)


class Clock:
    """Seconds of frames in order; they never go back.

    Args:
        fps: Known rate; None if it is not.
    """

    def __init__(self, fps: float | None) -> None:
        self.fps = fps
        self._least = 0.0 if fps else 1 / MOST_FPS  # that stamps have to grow by
        self._first: float | None = None
        self._last: float | None = None

    def seconds(self, stamp: float | None) -> float | None:
        """Seconds of the next frame since the first one, by its time stamp where that is usable.

        A stamp is not usable if it does not grow, or if it grows by a time base's tick where the
        rate is unknown. The rate then stands in for it; without one no later time is known.
        """
        if self._last is None and self._first is None:
            self._first, self._last = stamp or 0.0, 0.0
        elif self._last is not None:
            self._last = self._next(stamp, self._last)
        return self._last

    def all_seconds(self, stamps: Sequence[float]) -> np.ndarray:
        """Seconds of all frames of a video, float64, NaN where unknown."""
        array = np.asarray(stamps, dtype=np.float64)
        if len(array) and (np.diff(array) > self._least).all():
            return array - array[0]
        return np.array([self.seconds(stamp) for stamp in stamps], dtype=np.float64)

    def _next(self, stamp: float | None, last: float) -> float | None:
        if stamp is not None and stamp - self._first - last > self._least:
            return stamp - self._first
        return last + 1 / self.fps if self.fps else None
