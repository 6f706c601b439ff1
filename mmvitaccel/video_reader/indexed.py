"""Frames of a file by number, and numbers by time: what data sets ask for."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np

from mmvitaccel.errors import UserError
from mmvitaccel.video_reader.backends import signature_of
from mmvitaccel.video_reader.opencv import OpenCVCapture
from mmvitaccel.video_reader.pyav import is_installed, open_container, upright
from mmvitaccel.video_reader.source import parse_source
from mmvitaccel.video_reader.timing import Clock, Unreadable, known_rate
from mmvitaccel.video_reader.video import frame_seconds, open_video

# reason: recordings of these are joined end to end, each with its own time from 0, which no one who
# seeks by time can tell apart
_JOINED = {"MPEG-TS", "MPEG-PS"}
_SAME = 5e-4  # seconds between two backends' times of one frame; half of Matroska's tick


class DecordBatch(NamedTuple):
    """Frames (n, H, W, 3), uint8 RGB, behind the one method of decord's arrays that is used."""

    images: np.ndarray

    def asnumpy(self) -> np.ndarray:
        """The frames."""
        return self.images


@dataclass(frozen=True)
class IndexedVideo:
    """A video whose frames have known places and times.

    Attributes:
        name: What it was opened by.
        seconds: (N,) seconds of the frames since the first one; NaN where it is not known.
        fps: Frames a second, by the header or else by the time stamps; None if not known.
        read: Decodes frames of ascending numbers, each once, (n, H, W, 3) uint8 RGB.
    """

    name: str
    seconds: np.ndarray
    fps: float | None
    read: Callable[[Sequence[int]], np.ndarray]

    def __len__(self) -> int:
        return len(self.seconds)

    def frames(self, indices: Sequence[int]) -> list[np.ndarray]:
        """The frames of these numbers, in this order; one that repeats is decoded once.

        Raises:
            UserError: Not all can be decoded.
        """
        wanted, place = np.unique(indices, return_inverse=True)
        try:
            found = self.read(wanted.tolist())
        except Unreadable:
            # reason: not every container can be sought in; its beginning can always be found
            found = self._from_beginning(wanted)
        return [found[i] for i in place.reshape(-1)]

    def get_batch(self, indices: Sequence[int]) -> DecordBatch:
        """The frames of these numbers, as mmaction2's ``DecordDecode`` expects them from decord.

        mmaction2's inferencer puts that transform in place of :class:`DecodeFrames`.

        Raises:
            UserError: Not all can be decoded.
        """
        return DecordBatch(_stack(self.name, self.frames(indices)))

    def _from_beginning(self, wanted: np.ndarray) -> np.ndarray:
        """The frames of these numbers by their times, for a damaged file's numbers are others."""
        times = self.seconds[wanted]
        found: dict[int, np.ndarray] = {}
        with open_video(self.name) as video:
            for frame in video:
                seconds = np.nan if frame.seconds is None else frame.seconds
                for place in np.flatnonzero(abs(times - seconds) < _SAME):
                    found[int(place)] = frame.image
                if seconds > times[-1]:
                    break
        if len(found) < len(wanted):
            raise self._missing(wanted)
        return _stack(self.name, [found[place] for place in range(len(wanted))])

    def between(self, start: float, stop: float) -> tuple[int, int]:
        """First frame and the one behind the last of a stretch in seconds, by time stamps.

        Each moment belongs to the frame whose time stamp is nearest.

        Raises:
            UserError: No time stamps are known.
        """
        if np.isnan(self.seconds).any():
            raise UserError(
                f"{self.name} has neither time stamps nor a frame rate, so that {start:.2f} s to "
                f"{stop:.2f} s cannot be located; rewrite the file with a rate (ffmpeg -r)."
            )
        ends = np.append(self.seconds[1:], self.end)
        middles = (self.seconds + ends) / 2
        first, last = np.searchsorted(middles, [start, stop], side="left")
        return int(first), int(last)

    def rate(self, first: int, last: int) -> float | None:
        """Frames a second from the frame ``first`` up to the one before ``last``."""
        if first == 0 and last == len(self):
            return self.fps
        stretch = self.seconds[first:last]
        return _rate(None, stretch - stretch[0]) or self.fps

    @property
    def end(self) -> float:
        """Seconds at which the last frame ends."""
        steps = np.diff(self.seconds)
        last = 1 / self.fps if self.fps else float(np.median(steps)) if len(steps) else 0.0
        return float(self.seconds[-1]) + last

    def _missing(self, wanted: np.ndarray) -> UserError:
        return UserError(
            f"'{self.name}' announces {len(self)} frames, but not all of the frames {wanted[0]} to "
            f"{wanted[-1]} can be decoded: it is damaged or ends in the middle; get it again or "
            "take it out of the annotation file."
        )


def open_indexed(source: str | os.PathLike, num_threads: int = 1) -> IndexedVideo:
    """Open a file, a folder or a pattern of pictures by number.

    PyAV seeks in what it has time stamps of, if these never jump back; without it decord does where
    it reads the file and the file is not turned. Anything else is read from its beginning each
    time.

    Args:
        source: As of :func:`~mmvitaccel.video_reader.open_video`; not live.
        num_threads: Threads that decode.

    Raises:
        UserError: It cannot be opened.
    """
    parsed = parse_source(source)
    if parsed.kind == "file":
        joined = signature_of(parsed).container in _JOINED
        backend = _by_pyav if is_installed() else None if joined else _by_decord
        found = backend and backend(str(parsed.target), num_threads)
        if found is not None:
            return found
    seconds = np.array(frame_seconds(source), dtype=np.float64)  # None becomes NaN
    with open_video(source) as video:
        fps = video.fps

    def read(wanted: Sequence[int]) -> np.ndarray:
        return _stack(parsed.name, [frame.image for frame in open_video(source).select(wanted)])

    return IndexedVideo(parsed.name, seconds, _rate(fps, seconds), read)


def _rate(fps: float | None, seconds: np.ndarray) -> float | None:
    """The header's rate if it is one, else that of the time stamps."""
    if known_rate(fps) is not None:
        return known_rate(fps)
    length = seconds[-1] if len(seconds) > 1 else np.nan
    return float((len(seconds) - 1) / length) if length > 0 else None


def _by_decord(path: str, num_threads: int) -> IndexedVideo | None:
    """By decord, which seeks; None of what it cannot read, or reads wrongly."""
    if find_spec("decord") is None:
        return None
    import decord

    try:
        # reason: of a turned video, decord gives pictures of four channels that are none
        capture = OpenCVCapture(path)
    except Unreadable:
        return None
    turned, count = capture.turned, capture.count
    capture.close()
    # reason: decord reserves memory for all frames that a header announces, and ends the process
    # where that fails; a frame takes a byte at least
    if turned or count > os.path.getsize(path):
        return None
    try:
        reader = decord.VideoReader(path, num_threads=num_threads)
        stamps = reader.get_frame_timestamp(range(len(reader)))[:, 0]
    except (RuntimeError, decord.DECORDError, IndexError):
        return None
    # reason: what lies before 0 is cut off by an edit list; decord counts it and repeats the last
    if len(stamps) and stamps[0] < 0:
        return None
    seconds = Clock(known_rate(reader.get_avg_fps())).all_seconds(stamps)

    def read(wanted: Sequence[int]) -> np.ndarray:
        try:
            return reader.get_batch(wanted).asnumpy()
        except (RuntimeError, decord.DECORDError) as error:
            raise Unreadable(str(error)) from error

    return IndexedVideo(path, seconds, _rate(reader.get_avg_fps(), seconds), read)


def _by_pyav(path: str, num_threads: int) -> IndexedVideo | None:
    """By PyAV, which seeks by time stamp; None of what has none, or has one time twice."""
    try:
        container, stream = open_container(path)
    except Unreadable:
        return None
    with container:
        packets = [(p.pts, p.dts) for p in container.demux(stream) if p.size and not p.is_discard]
        rate = stream.average_rate or stream.guessed_rate
        base = float(stream.time_base or 0)
    stamps = sorted(pts for pts, _ in packets if pts is not None)
    order = [dts for _, dts in packets if dts is not None]
    # reason: of recordings joined end to end, sorting would mix the frames
    if not stamps or len(set(stamps)) < len(packets) or order != sorted(order):
        return None
    fps = None if rate is None else float(rate)
    seconds = Clock(known_rate(fps)).all_seconds([stamp * base for stamp in stamps])

    def read(wanted: Sequence[int]) -> np.ndarray:
        return _decode(path, [stamps[index] for index in wanted], num_threads)

    return IndexedVideo(path, seconds, _rate(fps, seconds), read)


def _decode(path: str, wanted: Sequence[int], num_threads: int) -> np.ndarray:
    """The frames of these ascending time stamps."""
    import av

    container, stream = open_container(path)
    stream.codec_context.thread_count = num_threads
    found: dict[int, np.ndarray] = {}
    with container:
        try:
            container.seek(wanted[0], stream=stream)
            for frame in container.decode(stream):
                if frame.pts in wanted:
                    found[frame.pts] = upright(frame)
                if frame.pts is not None and frame.pts >= wanted[-1]:
                    break
        except av.error.FFmpegError as error:
            raise Unreadable(str(error)) from error
    missing = [stamp for stamp in wanted if stamp not in found]
    if missing:
        raise Unreadable(f"{len(missing)} of {len(wanted)} frames")
    return _stack(path, [found[stamp] for stamp in wanted])


def _stack(name: str, images: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures (n, H, W, 3) of one size.

    Raises:
        UserError: They are of several.
    """
    sizes = list(dict.fromkeys(f"{image.shape[1]} x {image.shape[0]}" for image in images))
    if len(sizes) > 1:
        raise UserError(
            f"the pictures of {name} are of several sizes ({', '.join(sizes[:4])}), and a clip "
            "has one; resize them, of a video with ffmpeg -vf scale=WIDTH:HEIGHT."
        )
    return np.stack(images)
