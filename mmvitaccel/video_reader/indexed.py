"""Random access to the frames of a file, by index and by time, for data sets."""

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

# Files of these are often several recordings in a row, each with times from 0. Seeking by time is
# then ambiguous.
_CONCATENATED = {"MPEG-TS", "MPEG-PS"}
# Seconds by which two backends' times of one frame may differ: half of Matroska's tick.
_TIME_TOLERANCE = 5e-4


class DecordBatch(NamedTuple):
    """Frames with the one method of decord's arrays that mmaction2 uses.

    Attributes:
        images: (n, H, W, 3) uint8 RGB.
    """

    images: np.ndarray

    def asnumpy(self) -> np.ndarray:
        """Return the frames, (n, H, W, 3) uint8 RGB."""
        return self.images


@dataclass(frozen=True)
class IndexedVideo:
    """A video with random access to its N frames.

    Attributes:
        name: Path or pattern of the video.
        seconds: (N,) seconds of the frames since the first one; NaN if unknown.
        fps: Frames per second, from the header or else from the time stamps; None if unknown.
        read: Decodes the frames of n ascending, distinct indices: (n, H, W, 3) uint8 RGB.
    """

    name: str
    seconds: np.ndarray
    fps: float | None
    read: Callable[[Sequence[int]], np.ndarray]

    def __len__(self) -> int:
        return len(self.seconds)

    def frames(self, indices: Sequence[int]) -> list[np.ndarray]:
        """Return the frames with these indices, in this order.

        Args:
            indices: Indices of frames from 0; they may repeat and need no order.

        Returns:
            An (H, W, 3) uint8 RGB array for each index.

        Raises:
            UserError: If some of them cannot be decoded.
        """
        wanted, inverse = np.unique(indices, return_inverse=True)
        try:
            found = self.read(wanted.tolist())
        except Unreadable:
            # Seeking fails in some containers; reading from the beginning always works.
            found = self._from_beginning(wanted)
        return [found[i] for i in inverse.reshape(-1)]

    def get_batch(self, indices: Sequence[int]) -> DecordBatch:
        """Return the frames with these indices as mmaction2's ``DecordDecode`` expects them.

        mmaction2's inferencer replaces :class:`DecodeFrames` with that transform.

        Raises:
            UserError: If some of them cannot be decoded or their sizes differ.
        """
        return DecordBatch(_stack(self.name, self.frames(indices)))

    def _from_beginning(self, wanted: np.ndarray) -> np.ndarray:
        """Read the frames by their times from the beginning; damage shifts a file's indices."""
        times = self.seconds[wanted]
        found: dict[int, np.ndarray] = {}
        with open_video(self.name) as video:
            for frame in video:
                seconds = np.nan if frame.seconds is None else frame.seconds
                for position in np.flatnonzero(abs(times - seconds) < _TIME_TOLERANCE):
                    found[int(position)] = frame.image
                if seconds > times[-1]:
                    break
        if len(found) < len(wanted):
            raise self._missing(wanted)
        return _stack(self.name, [found[position] for position in range(len(wanted))])

    def between(self, start: float, stop: float) -> tuple[int, int]:
        """Return the frames of a time interval, by time stamps.

        Each moment belongs to the frame with the nearest time stamp.

        Args:
            start: Start of the interval in seconds since the first frame.
            stop: End of the interval in the same unit.

        Returns:
            Index of the first frame, and index of the last frame plus one.

        Raises:
            UserError: If time stamps are missing.
        """
        if np.isnan(self.seconds).any():
            raise UserError(
                f"{self.name} has neither time stamps nor a frame rate, so {start:.2f} s to "
                f"{stop:.2f} s cannot be located; write the file again with a rate (ffmpeg -r)."
            )
        ends = np.append(self.seconds[1:], self.end)
        middles = (self.seconds + ends) / 2
        first, last = np.searchsorted(middles, [start, stop], side="left")
        return int(first), int(last)

    def rate(self, first: int, last: int) -> float | None:
        """Return the frames per second of the frames ``first`` to ``last - 1``; None if unknown."""
        if first == 0 and last == len(self):
            return self.fps
        seconds = self.seconds[first:last]
        return _rate(None, seconds - seconds[0]) or self.fps

    @property
    def end(self) -> float:
        """Seconds from the start of the first frame to the end of the last one."""
        steps = np.diff(self.seconds)
        last = 1 / self.fps if self.fps else float(np.median(steps)) if len(steps) else 0.0
        return float(self.seconds[-1]) + last

    def _missing(self, wanted: np.ndarray) -> UserError:
        return UserError(
            f"'{self.name}' should have {len(self)} frames, but some of the frames {wanted[0]} to "
            f"{wanted[-1]} cannot be decoded: it is damaged or incomplete; get a new copy or "
            "remove it from the annotation file."
        )


def open_indexed(source: str | os.PathLike, num_threads: int = 1) -> IndexedVideo:
    """Open a file, or a folder or pattern of images, for random access.

    PyAV seeks in files whose time stamps are known and never jump back. If PyAV is not installed,
    decord seeks in files that it supports and that are not rotated. Any other source is read from
    its beginning at each access.

    Args:
        source: See :func:`~mmvitaccel.video_reader.open_video`; live sources are not supported.
        num_threads: Number of decoding threads.

    Raises:
        UserError: If the source cannot be opened or is live.
    """
    parsed = parse_source(source)
    if parsed.kind == "file":
        concatenated = signature_of(parsed).container in _CONCATENATED
        backend = _open_pyav if is_installed() else None if concatenated else _open_decord
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
    """Return the header's rate if it is valid, else the mean rate of the time stamps."""
    if known_rate(fps) is not None:
        return known_rate(fps)
    length = seconds[-1] if len(seconds) > 1 else np.nan
    return float((len(seconds) - 1) / length) if length > 0 else None


def _open_decord(path: str, num_threads: int) -> IndexedVideo | None:
    """Open a file with decord; return None if decord is missing or reads the file wrongly."""
    if find_spec("decord") is None:
        return None
    import decord

    try:
        # decord returns invalid images with four channels for a rotated video.
        capture = OpenCVCapture(path)
    except Unreadable:
        return None
    turned, count = capture.turned, capture.count
    capture.close()
    # decord allocates memory for all frames in the header and kills the process if that fails. A
    # frame takes at least one byte, so a larger count is wrong.
    if turned or count > os.path.getsize(path):
        return None
    try:
        reader = decord.VideoReader(path, num_threads=num_threads)
        stamps = reader.get_frame_timestamp(range(len(reader)))[:, 0]
    except (RuntimeError, decord.DECORDError, IndexError):
        return None
    # An edit list cuts off the frames before 0, but decord counts them and repeats the last frame.
    if len(stamps) and stamps[0] < 0:
        return None
    seconds = Clock(known_rate(reader.get_avg_fps())).all_seconds(stamps)

    def read(wanted: Sequence[int]) -> np.ndarray:
        try:
            return reader.get_batch(wanted).asnumpy()
        except (RuntimeError, decord.DECORDError) as error:
            raise Unreadable(str(error)) from error

    return IndexedVideo(path, seconds, _rate(reader.get_avg_fps(), seconds), read)


def _open_pyav(path: str, num_threads: int) -> IndexedVideo | None:
    """Open a file with PyAV, which seeks by time stamp.

    Returns:
        None if the file cannot be opened, or if its time stamps are missing, repeat or jump back.
    """
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
    # In concatenated recordings, sorting would mix the frames.
    if not stamps or len(set(stamps)) < len(packets) or order != sorted(order):
        return None
    fps = None if rate is None else float(rate)
    seconds = Clock(known_rate(fps)).all_seconds([stamp * base for stamp in stamps])

    def read(wanted: Sequence[int]) -> np.ndarray:
        return _decode(path, [stamps[index] for index in wanted], num_threads)

    return IndexedVideo(path, seconds, _rate(fps, seconds), read)


def _decode(path: str, wanted: Sequence[int], num_threads: int) -> np.ndarray:
    """Decode the frames with these ascending time stamps: (n, H, W, 3) uint8 RGB.

    Raises:
        Unreadable: If some of them cannot be decoded.
    """
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
    """Stack n images (H, W, 3) to (n, H, W, 3).

    Raises:
        UserError: If their sizes differ.
    """
    sizes = list(dict.fromkeys(f"{image.shape[1]} x {image.shape[0]}" for image in images))
    if len(sizes) > 1:
        raise UserError(
            f"the pictures of {name} have several sizes ({', '.join(sizes[:4])}), but a clip needs "
            "one; resize them (a video with ffmpeg -vf scale=WIDTH:HEIGHT)."
        )
    return np.stack(images)
