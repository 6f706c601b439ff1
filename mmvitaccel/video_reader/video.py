"""Frames of any source one at a time."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Iterator
from functools import partial

import numpy as np

from mmvitaccel.errors import UserError
from mmvitaccel.video_reader.backends import open_file, open_remote
from mmvitaccel.video_reader.live import POLICIES, LiveCapture, LiveOptions
from mmvitaccel.video_reader.pictures import PictureCapture
from mmvitaccel.video_reader.signature import ISO, Signature
from mmvitaccel.video_reader.source import LIVE_SCHEMES, Source, parse_source
from mmvitaccel.video_reader.timing import (
    MOST_FPS,
    Capture,
    Clock,
    Ending,
    Frame,
    Stamp,
    Unreadable,
    broke_off,
    known_count,
    known_duration,
    known_rate,
)


def warn(sentence: str) -> None:
    """Print a warning on stderr."""
    print(f"warning: {sentence}", file=sys.stderr, flush=True)


class Video:
    """Frames of a source, decoded as they are iterated over, once.

    :func:`open_video` makes it. A ``with`` block or the end of an iteration closes it.

    Attributes:
        name: As messages show it.
        fps: Frames a second; None if it is not known.
        length: Frames; None if it is not known.
        live: Whether it is a camera or a stream.
        given: Frames gone to so far, those that were passed over too.
    """

    def __init__(
        self,
        name: str,
        capture: Capture,
        first: Stamp | None = None,
        fps: float | None = None,
        signature: Signature | None = None,
    ) -> None:
        self.name = name
        self.live = isinstance(capture, LiveCapture)
        self.fps = known_rate(capture.fps) if fps is None else fps
        counted = signature is None or signature.counts_frames
        self.length = known_count(capture.count) if counted and self._trusts(capture) else None
        self.given = 0
        self._capture, self._ahead, self._signature = capture, first, signature
        self._clock = Clock(self.fps)
        # reason: a rate that the caller gave stands above the time stamps
        self._by_index = fps is not None and not self.live
        self._index = -1
        self._seconds: float | None = None
        self._stamp: float | None = None
        self._ended = False

    @staticmethod
    def _trusts(capture: Capture) -> bool:
        """Whether a count can be believed: not beside a rate that cannot be."""
        return capture.fps is None or known_rate(capture.fps) is not None

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Frame]:
        return self._frames(None)

    def select(self, indices: Collection[int]) -> Iterator[Frame]:
        """The frames of these numbers, in their order; others are passed over undrawn."""
        return self._frames(set(indices))

    def times(self) -> Iterator[float | None]:
        """Seconds of each frame, without its picture."""
        with self:
            while (grabbed := self._grab()) is not None:
                yield grabbed[1]

    def close(self) -> None:
        """Let go of the source."""
        self._capture.close()

    @property
    def behind(self) -> float | None:
        """Seconds that the last frame waited; None of what is not live."""
        return self._capture.behind if self.live else None

    def complaint(self) -> str | None:
        """What is to be said of how the frames ended; None if there is nothing."""
        if not self._ended:
            return None
        if self.live:
            back = self._capture.reconnected
            return broke_off(self.name, self._index, self._seconds, back)
        certain = self._signature is not None and self._signature.container == ISO
        end = Ending(self.name, self.given, self._seconds, self._capture.damaged, self._stamp)
        return end.short_of(self.length, certain, self.fps and self._capture.duration)

    def notes(self) -> list[str]:
        """All that is to be said at the end: the complaint, frames left out, and delays."""
        said = [self.complaint()]
        if self.live and self._capture.dropped:
            said.append(
                f"{self._capture.dropped} of {self._index + 1} frames of {self.name} were left "
                "out: they came faster than they were used (policy 'newest')."
            )
        if self.live and self._capture.fallen_back:
            said.append(
                f"{self.name} came faster than it was used (policy 'all'): the last frame waited "
                f"{self.behind:.1f} s, and the source was made to wait besides."
            )
        return [sentence for sentence in said if sentence]

    def _frames(self, wanted: set[int] | None) -> Iterator[Frame]:
        last = None if wanted is None else max(wanted, default=-1)
        with self:
            while last is None or self.given <= last:
                grabbed = self._grab()
                if grabbed is None:
                    return
                if wanted is None or grabbed[0] in wanted:
                    yield Frame(self._picture(), *grabbed)

    def _picture(self) -> np.ndarray:
        try:
            return self._capture.picture()
        except Unreadable as error:
            raise UserError(
                f"{self.name}: {error}; it is damaged or incomplete, get it again."
            ) from error

    def _grab(self) -> tuple[int, float | None] | None:
        """Number and seconds of the next frame."""
        stamp, self._ahead = self._ahead or self._capture.grab(), None
        if stamp is None:
            self._ended = True
            return None
        self.given += 1
        self._index, self._stamp = stamp.index, stamp.seconds
        if self.live:
            self._seconds = stamp.seconds
        elif self._by_index:
            self._seconds = stamp.index / self.fps
        else:
            self._seconds = self._clock.seconds(stamp.seconds)
        return stamp.index, self._seconds


def open_video(
    source: str | int | os.PathLike,
    fps: float | None = None,
    policy: str | None = None,
    reconnect: int = 0,
    say: Callable[[str], None] = warn,
) -> Video:
    """Open a video.

    Args:
        source: A file; a folder or a pattern (``%06d.png``, ``*.png``) of numbered pictures; an
            address (``rtsp://``, ``http://``, ``file://``); ``camera``, ``camera:1``,
            ``/dev/video1`` or ``1`` for a camera.
        fps: Frame rate of what has none, as pictures; stands above a file's own.
        policy: Of a live source: ``'newest'`` leaves out what came while the last frame was
            worked on, ``'all'`` keeps every frame. By default the newest. Files are never
            thinned out.
        reconnect: How many times in a row to connect again to a live source that broke off.
        say: Takes a sentence when that happens.

    Returns:
        The video. Its memory is bounded: one frame, or of a live source 64.

    Raises:
        UserError: The source cannot be opened, or an option has no meaning.
    """
    if fps is not None and known_rate(fps) is None:
        raise UserError(f"the frame rate is {fps:g}; give one above 0 and up to {MOST_FPS:g}.")
    if policy not in (None, *POLICIES):
        raise UserError(f"the policy is {policy!r}; give one of {', '.join(POLICIES)}.")
    if reconnect < 0:
        raise UserError(f"reconnect is {reconnect}; give 0 or more.")
    parsed = parse_source(source)
    if parsed.kind == "file":
        capture, first, signature = open_file(parsed)
        return Video(parsed.name, capture, first, fps, signature)
    if parsed.kind == "pictures":
        return Video(parsed.name, PictureCapture(str(parsed.target)), fps=fps)
    capture = _connect(parsed)
    if _is_live(parsed, capture):
        options = LiveOptions(policy or "newest", reconnect, say)
        capture = LiveCapture(parsed.name, capture, partial(open_remote, parsed), options)
    return Video(parsed.name, capture, fps=fps)


def frame_seconds(source: str | int | os.PathLike, fps: float | None = None) -> list[float | None]:
    """Seconds of every frame of a file or of pictures; as many as there are frames.

    Raises:
        UserError: It cannot be opened, or is live and has no end.
    """
    video = open_video(source, fps)
    if video.live:
        video.close()
        raise UserError(f"{video.name} is live, so that its frames cannot be counted; give a file.")
    return list(video.times())


def _connect(source: Source) -> Capture:
    try:
        return open_remote(source)
    except Unreadable as error:
        if source.kind == "camera":
            raise UserError(
                f"cannot open {source.name}; check with another program that the camera is there."
            ) from error
        what = f"cannot be opened as a video ({str(error) or 'no answer, or no video'})"
        raise UserError(f"{source.name} {what}; check it with another program.") from error


def _is_live(source: Source, capture: Capture) -> bool:
    if source.kind == "camera" or str(source.target).partition(":")[0].lower() in LIVE_SCHEMES:
        return True
    return known_duration(capture.duration) is None
