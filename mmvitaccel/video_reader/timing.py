"""Frames, checks of the times and counts in a container's header, and reports of early ends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

# A larger value in a header is a time base (1000, 90000), not a rate. Files of slow-motion cameras
# play at an ordinary rate.
MOST_FPS = 480.0
_MOST_FRAMES = 2**31
_MOST_SECONDS = 1e7
_TOLERATED_FRAMES = 2  # some containers announce one or two frames that no player shows
_TOLERATED_SECONDS, _LEAST_SHARE = 2.0, 0.9  # audio may continue after the last frame


@dataclass(frozen=True)
class Frame:
    """A frame of a video.

    Attributes:
        image: (H, W, 3) uint8 RGB, upright.
        index: Index in the source, from 0; dropped frames of a live source are counted.
        seconds: Seconds since the first frame, by time stamp for a file and by arrival for a live
            source; None if neither time stamps nor a rate are known.
    """

    image: np.ndarray
    index: int
    seconds: float | None


class Stamp(NamedTuple):
    """Index of the current frame in the source, and its time stamp in seconds if it has one."""

    index: int
    seconds: float | None


class Unreadable(Exception):
    """Raised if a backend cannot open or decode a source; the message is the reason, or empty."""


class Capture(Protocol):
    """Protocol of a backend.

    Attributes:
        fps: Frames per second in the header.
        count: Number of frames in the header.
        duration: Duration in the header, in seconds.
        damaged: Number of packets so far that could not be decoded, if the backend reports it.
    """

    fps: float | None
    count: float | None
    duration: float | None
    damaged: int

    def grab(self) -> Stamp | None:
        """Advance to the next frame; return None at the end."""

    def picture(self) -> np.ndarray:
        """Return the current frame, (H, W, 3) uint8 RGB, upright."""

    def close(self) -> None:
        """Close the source."""


def known_rate(fps: float | None) -> float | None:
    """Return a header's frame rate, or None if it is not one: zero, negative or a time base."""
    if fps is None or not math.isfinite(fps) or not 0 < fps <= MOST_FPS:
        return None
    return float(fps)


def known_count(count: float | None) -> int | None:
    """Return a header's frame count, or None if it is zero, negative or 2**31 or more."""
    if count is None or not math.isfinite(count) or not 0 < count < _MOST_FRAMES:
        return None
    return int(count)


def known_duration(seconds: float | None) -> float | None:
    """Return a header's duration in seconds, or None if it is not above 0 and below 1e7."""
    if seconds is None or not math.isfinite(seconds) or not 0 < seconds < _MOST_SECONDS:
        return None
    return float(seconds)


class Clock:
    """Converts time stamps of consecutive frames to increasing seconds.

    Args:
        fps: Frame rate; None if unknown.
    """

    def __init__(self, fps: float | None) -> None:
        self.fps = fps
        self._least_step = 0.0 if fps else 1 / MOST_FPS  # seconds; time stamps must grow by more
        self._first: float | None = None
        self._last: float | None = None

    def seconds(self, stamp: float | None) -> float | None:
        """Return the seconds of the next frame since the first one.

        A time stamp is unusable if it does not grow or, with an unknown rate, if it only grows by a
        tick of the time base. The time then follows from the rate. Without a rate, this time and
        all later ones are unknown: None.

        Args:
            stamp: Time stamp of the frame in seconds; None if it has none.
        """
        if self._last is None and self._first is None:
            self._first, self._last = stamp or 0.0, 0.0
        elif self._last is not None:
            self._last = self._next(stamp, self._last)
        return self._last

    def all_seconds(self, stamps: Sequence[float]) -> np.ndarray:
        """Return the seconds of all frames of a video, (N,) float64; NaN if unknown."""
        array = np.asarray(stamps, dtype=np.float64)
        if len(array) and (np.diff(array) > self._least_step).all():
            return array - array[0]
        return np.array([self.seconds(stamp) for stamp in stamps], dtype=np.float64)

    def _next(self, stamp: float | None, last: float) -> float | None:
        if stamp is not None and stamp - self._first - last > self._least_step:
            return stamp - self._first
        return last + 1 / self.fps if self.fps else None


@dataclass(frozen=True)
class Ending:
    """The end of a file, as decoded.

    Attributes:
        name: Name of the file.
        given: Number of decoded frames.
        seconds: Seconds of the last frame since the first one; None if unknown.
        damaged: Number of packets that could not be decoded.
        stamp: The container's time stamp of the last frame in seconds; the first need not be 0.
    """

    name: str
    given: int
    seconds: float | None
    damaged: int
    stamp: float | None = None

    def short_of(self, length: int | None, certain: bool, duration: float | None) -> str | None:
        """Return a warning if the file ended before the end in its header or parts are missing.

        Args:
            length: Number of frames in the header; None if unknown.
            certain: Whether the header lists each frame, so that the number is right.
            duration: Duration in the header, in seconds; None if unknown.
        """
        duration = known_duration(duration)
        if length is not None and length - self.given > _TOLERATED_FRAMES:
            what = (
                "it is damaged or incomplete"
                if certain or self.damaged
                else "it is incomplete, or its header is wrong"
            )
            return (
                f"{self.name} ended at frame {self.given} of {length}: {what}; the results cover "
                "the frames up to there."
            )
        if self.damaged:
            return (
                f"{self.name} is damaged: {self.damaged} parts of it could not be decoded and were "
                f"skipped; {self.given} frames were decoded."
            )
        if duration is None or self.seconds is None:
            return None
        # Some containers count their duration from 0, which is before the first frame.
        ended = max(self.seconds, self.stamp or 0.0)
        if duration - ended > _TOLERATED_SECONDS and ended < _LEAST_SHARE * duration:
            return (
                f"{self.name} ended at {self.seconds:.2f} s of {duration:.2f} s: it is incomplete, "
                "or its header is wrong; the results cover the frames up to there."
            )
        return None


def disconnection(name: str, index: int, seconds: float | None, reconnected: int) -> str:
    """Return a warning that a live source has disconnected.

    Args:
        name: Name of the source.
        index: Index of its last frame; -1 if there was none.
        seconds: Seconds of that frame since the first one.
        reconnected: Number of reconnections before.
    """
    if index < 0:
        return f"{name} disconnected before its first frame; check it with another program."
    before = f"; reconnections before: {reconnected}" if reconnected else ""
    return f"{name} disconnected after frame {index} ({seconds:.2f} s after the first){before}."
