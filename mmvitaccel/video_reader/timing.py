"""Frames, what to believe of their times and counts in a container, and of how they ended."""

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
_FRAMES = 2  # reason: some containers announce a frame or two that no player shows
_SECONDS, _SHARE = 2.0, 0.9  # reason: sound may go on behind the last picture


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


@dataclass(frozen=True)
class Ending:
    """Where a file ended.

    Attributes:
        name: Of the file.
        given: Frames that it gave.
        seconds: Of the last one; None if not known.
        damaged: Parts that could not be decoded.
        stamp: The container's time stamp of the last frame, which need not begin at 0.
    """

    name: str
    given: int
    seconds: float | None
    damaged: int
    stamp: float | None = None

    def short_of(self, length: int | None, certain: bool, duration: float | None) -> str | None:
        """A sentence if that is before the announced end, or parts are missing.

        Args:
            length: Announced frames; None if not known.
            certain: Whether the header has a place for each of them.
            duration: Announced seconds; None if not known.
        """
        duration = known_duration(duration)
        if length is not None and length - self.given > _FRAMES:
            what = (
                "it is damaged or incomplete"
                if certain or self.damaged
                else "it is incomplete, or its header is wrong"
            )
            return (
                f"{self.name} ended at frame {self.given} of {length}: {what}; the results are of "
                "the frames before."
            )
        if self.damaged:
            return (
                f"{self.name} is damaged: {self.damaged} parts of it could not be decoded and were "
                f"left out; it gave {self.given} frames."
            )
        if duration is None or self.seconds is None:
            return None
        # reason: some containers count their duration from 0, before the first frame
        ended = max(self.seconds, self.stamp or 0.0)
        if duration - ended > _SECONDS and ended < _SHARE * duration:
            return (
                f"{self.name} ended at {self.seconds:.2f} s of {duration:.2f} s: it is incomplete, "
                "or its header is wrong; the results are of the frames before."
            )
        return None


def broke_off(name: str, index: int, seconds: float | None, reconnected: int) -> str:
    """A sentence on a live source that is gone.

    Args:
        name: Of the source.
        index: Of its last frame; -1 if there was none.
        seconds: Of that frame.
        reconnected: How often it came back before.
    """
    if index < 0:
        return f"{name} broke off before its first frame; check it with another program."
    back = f" after coming back {reconnected} times" if reconnected else ""
    return f"{name} broke off{back}: frame {index}, {seconds:.2f} s after the first, was the last."
