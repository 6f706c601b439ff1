"""Reading of any video source frame by frame."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator
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
    disconnection,
    known_count,
    known_duration,
    known_rate,
)


def warn(sentence: str) -> None:
    """Print a warning on stderr."""
    print(f"warning: {sentence}", file=sys.stderr, flush=True)


class Video:
    """An iterator over the frames of a source, which are decoded on demand. It can be used once.

    :func:`open_video` creates it. Leaving a ``with`` block or ending an iteration closes it.

    Attributes:
        name: Name for messages.
        fps: Frames per second; None if unknown.
        length: Number of frames; None if unknown.
        live: Whether it is a camera or a network stream.
        given: Number of frames read so far, skipped ones included.
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
        # A rate from the caller takes precedence over the time stamps.
        self._by_index = fps is not None and not self.live
        self._index = -1
        self._seconds: float | None = None
        self._stamp: float | None = None
        self._ended = False

    @staticmethod
    def _trusts(capture: Capture) -> bool:
        """Check whether the header's count is credible: it is not if the rate is not."""
        return capture.fps is None or known_rate(capture.fps) is not None

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Frame]:
        return self._frames(None)

    def select(self, indices: Collection[int]) -> Iterator[Frame]:
        """Iterate over the frames with these indices, in ascending order.

        Other frames are skipped: no image of them is made.
        """
        return self._frames(set(indices))

    def times(self) -> Iterator[float | None]:
        """Iterate over the seconds of each frame since the first one; no images are made."""
        with self:
            while (grabbed := self._grab()) is not None:
                yield grabbed[1]

    def close(self) -> None:
        """Close the source."""
        self._capture.close()

    @property
    def behind(self) -> float | None:
        """Seconds that the last frame spent in the buffer; None if the source is not live."""
        return self._capture.behind if self.live else None

    def complaint(self) -> str | None:
        """Return a warning if the frames ended early or some were damaged, else None."""
        if not self._ended:
            return None
        if self.live:
            reconnected = self._capture.reconnected
            return disconnection(self.name, self._index, self._seconds, reconnected)
        certain = self._signature is not None and self._signature.container == ISO
        end = Ending(self.name, self.given, self._seconds, self._capture.damaged, self._stamp)
        return end.short_of(self.length, certain, self.fps and self._capture.duration)

    def notes(self) -> list[str]:
        """Return the warnings for the end of a run: :meth:`complaint`, dropped frames, delays."""
        sentences = [self.complaint()]
        if self.live and self._capture.dropped:
            sentences.append(
                f"{self._capture.dropped} of {self._index + 1} frames of {self.name} were dropped: "
                "they arrived faster than they were processed (policy 'newest')."
            )
        if self.live and self._capture.was_full:
            sentences.append(
                f"frames of {self.name} arrived faster than they were processed (policy 'all'): "
                f"the last one waited {self.behind:.1f} s, and the buffer was full at times."
            )
        return [sentence for sentence in sentences if sentence]

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
                f"{self.name}: {error}; it is damaged or incomplete, get a new copy."
            ) from error

    def _grab(self) -> tuple[int, float | None] | None:
        """Advance; return the index and seconds of the next frame, or None at the end."""
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
) -> Video:
    """Open a video.

    Args:
        source: A file; a folder or a pattern (``%06d.png``, ``*.png``) of numbered images; a URL
            (``rtsp://``, ``http://``, ``file://``); ``camera``, ``camera:1``, ``/dev/video1`` or
            ``1`` for a camera.
        fps: Frames per second, for a source without a rate, such as images; overrides the rate
            and time stamps of a file.
        policy: For a live source: ``'newest'`` drops the frames that arrive while another one is
            processed, ``'all'`` keeps every frame. None means ``'newest'``. Frames of files are
            never dropped.
        reconnect: Number of consecutive attempts to reconnect to a live source that disconnected.

    Returns:
        The video. It holds one frame in memory, or up to 64 of a live source.

    Raises:
        UserError: If the source cannot be opened or an option is out of range.
    """
    if fps is not None and known_rate(fps) is None:
        raise UserError(f"the frame rate is {fps:g}; give one above 0 and at most {MOST_FPS:g}.")
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
        options = LiveOptions(policy or "newest", reconnect, warn)
        capture = LiveCapture(parsed.name, capture, partial(open_remote, parsed), options)
    return Video(parsed.name, capture, fps=fps)


def frame_seconds(source: str | int | os.PathLike, fps: float | None = None) -> list[float | None]:
    """Return the seconds of every frame of a file or of numbered images.

    Args:
        source: See :func:`open_video`.
        fps: See :func:`open_video`.

    Returns:
        Seconds since the first frame, one value per frame; None if unknown.

    Raises:
        UserError: If the source cannot be opened or is live.
    """
    video = open_video(source, fps)
    if video.live:
        video.close()
        raise UserError(f"{video.name} is live, so its frames cannot be counted; give a file.")
    return list(video.times())


def _connect(source: Source) -> Capture:
    try:
        return open_remote(source)
    except Unreadable as error:
        if source.kind == "camera":
            raise UserError(
                f"cannot open {source.name}; check with another program that the camera works."
            ) from error
        what = f"cannot be opened as a video ({str(error) or 'no response, or no video'})"
        raise UserError(f"{source.name} {what}; check it with another program.") from error


def _is_live(source: Source, capture: Capture) -> bool:
    if source.kind == "camera" or str(source.target).partition(":")[0].lower() in LIVE_SCHEMES:
        return True
    return known_duration(capture.duration) is None
