"""The PyAV backend (extra ``video``). It decodes AV1, for example; OpenCV's wheels do not."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np

from mmvitaccel.video_reader.display import Display, of_angle, of_matrix
from mmvitaccel.video_reader.opencv import TIMEOUT
from mmvitaccel.video_reader.timing import Stamp, Unreadable


def is_installed() -> bool:
    """Check whether PyAV is installed."""
    return find_spec("av") is not None


def open_container(target: str, remote: bool = False) -> tuple[Any, Any]:
    """Open a container and return it with its first video stream that is not a cover image.

    Args:
        target: Path or URL.
        remote: Whether it is a URL, which is then opened with a timeout.

    Raises:
        Unreadable: If it cannot be opened or has no such stream.
    """
    import av

    timeout = (TIMEOUT, TIMEOUT) if remote else None
    try:
        container = av.open(target, timeout=timeout, metadata_errors="ignore")
    except (av.error.FFmpegError, OSError) as error:
        raise Unreadable(getattr(error, "strerror", None) or str(error)) from error
    covers = av.stream.Disposition.attached_pic
    streams = [s for s in container.streams.video if not s.disposition & covers]
    if not streams or streams[0].codec_context is None:
        container.close()
        raise Unreadable("it has no video stream that FFmpeg can decode")
    # Frame threading delays frames, which a live source must not.
    streams[0].thread_type = "SLICE" if remote else "AUTO"
    return container, streams[0]


def upright(frame: Any) -> np.ndarray:
    """Convert a decoded frame to (H, W, 3) uint8 RGB and apply its display matrix."""
    display = _matrix_of(frame) or of_angle(frame.rotation)
    return display.upright(frame.to_ndarray(format="rgb24"))


def _matrix_of(frame: Any) -> Display | None:
    """Return the display of a frame's own matrix; None if it has none or an unsupported one."""
    try:
        side_data = frame.side_data
    except ValueError:  # PyAV raises it for a type of side data that it does not know
        return None
    for data in side_data:
        if data.type.name == "DISPLAYMATRIX":
            return of_matrix(np.frombuffer(bytes(data), np.int32, 9))
    return None


def av_time_base() -> int:
    """Return the units per second of a container's duration."""
    import av

    return av.time_base


class PyAVCapture:
    """Decodes a video with PyAV.

    Args:
        target: Path or URL.
        remote: Whether it is a URL, which is then read with a timeout.

    Raises:
        Unreadable: If it cannot be opened.
    """

    def __init__(self, target: str, remote: bool = False) -> None:
        self._container, stream = open_container(target, remote)
        rate = stream.average_rate or stream.guessed_rate
        self.fps = None if rate is None else float(rate)
        self.count = stream.frames or None
        self.duration = None
        if stream.duration and stream.time_base:
            self.duration = float(stream.duration * stream.time_base)
        elif self._container.duration:
            self.duration = self._container.duration / av_time_base()
        self.damaged = 0
        self._frames = self._decode(stream)
        self._frame: Any = None
        self._index = -1

    def _decode(self, stream: Any) -> Iterator[Any]:
        import av

        try:
            for packet in self._container.demux(stream):
                try:
                    yield from packet.decode()
                except av.error.FFmpegError:
                    # Continue after a damaged packet, as video players do.
                    self.damaged += 1
        except (av.error.FFmpegError, OSError):
            self.damaged += 1  # the rest cannot be reached

    def grab(self) -> Stamp | None:
        """Advance to the next frame; return None at the end."""
        self._frame = next(self._frames, None)
        if self._frame is None:
            return None
        self._index += 1
        return Stamp(self._index, self._frame.time)

    def picture(self) -> np.ndarray:
        """Return the current frame, (H, W, 3) uint8 RGB, upright."""
        return upright(self._frame)

    def close(self) -> None:
        """Close the container."""
        self._container.close()
