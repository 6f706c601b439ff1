"""Writing of frames to a video file."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mmvitaccel.errors import UserError
from mmvitaccel.video_reader.pyav import is_installed

H264, MPEG4 = "H.264", "MPEG-4"


class VideoWriter:
    """Writes an mp4: H.264, which browsers play, if PyAV is installed, else MPEG-4 with OpenCV.

    Args:
        path: Path of the file.
        fps: Frames per second.

    Attributes:
        codec: Codec of the file: ``'H.264'`` or ``'MPEG-4'``.
    """

    def __init__(self, path: str | os.PathLike, fps: float) -> None:
        self.path = Path(path)
        self.fps = fps
        self._writer: Any = None
        self.codec = H264 if is_installed() else MPEG4

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, image: np.ndarray) -> None:
        """Append a frame.

        Args:
            image: (H, W, 3) uint8 RGB, with the size of the first frame.

        Raises:
            UserError: If the file cannot be written.
            ValueError: If the size differs from the first frame's.
        """
        if self._writer is None:
            try:
                self.path.open("wb").close()
            except OSError as error:
                raise UserError(
                    f"{self.path} cannot be written as a video: {error.strerror}; check the folder."
                ) from error
            kind = _H264Writer if self.codec == H264 else _OpenCVWriter
            self._writer, self._shape = kind(self.path, self.fps, image.shape), image.shape
        if image.shape != self._shape:
            raise ValueError(
                f"VideoWriter: a frame has shape {image.shape} and the first had {self._shape}; "
                f"give frames of one size for {self.path}."
            )
        self._writer.add(image)

    def close(self) -> None:
        """Write what is still buffered and close the file."""
        if self._writer is not None:
            self._writer.close()


class _OpenCVWriter:
    def __init__(self, path: Path, fps: float, shape: tuple[int, ...]) -> None:
        code = cv2.VideoWriter_fourcc(*"mp4v")
        self.writer = cv2.VideoWriter(str(path), code, fps, (shape[1], shape[0]))
        if not self.writer.isOpened():
            raise UserError(
                f"{path} cannot be written as a video by OpenCV; give a name that ends in .mp4."
            )

    def add(self, image: np.ndarray) -> None:
        self.writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        self.writer.release()


class _H264Writer:
    def __init__(self, path: Path, fps: float, shape: tuple[int, ...]) -> None:
        import av

        self.path, self.failed = path, False
        self.container = av.open(str(path), "w", format="mp4")
        rate = Fraction(fps).limit_denominator(1001)
        try:
            self.stream = self.container.add_stream("h264", rate=rate)
        except ValueError as error:  # PyAV raises it if FFmpeg lacks the encoder
            self.container.close()
            raise UserError(
                f"{path} cannot be written: PyAV's FFmpeg has no H.264 encoder; "
                "install PyAV's own wheel, pip install --force-reinstall av."
            ) from error
        # yuv420p, which every player supports, requires even sides.
        self.padding = (shape[0] % 2, shape[1] % 2)
        self.stream.height, self.stream.width = (s + s % 2 for s in shape[:2])
        self.stream.pix_fmt = "yuv420p"

    def add(self, image: np.ndarray) -> None:
        import av

        padding = ((0, self.padding[0]), (0, self.padding[1]), (0, 0))
        padded = np.ascontiguousarray(np.pad(image, padding, mode="edge"))
        frame = av.VideoFrame.from_ndarray(padded, format="rgb24")
        try:
            self.container.mux(self.stream.encode(frame))
        except av.error.FFmpegError as error:
            self.failed = True
            if isinstance(error, OSError):  # from the disk
                raise
            height, width = image.shape[:2]
            raise UserError(
                f"{self.path} cannot be written: the H.264 encoder refuses frames of {width} x "
                f"{height} pixels ({error.strerror}); make them smaller."
            ) from error

    def close(self) -> None:
        # Flushing an encoder that has failed would only raise a second error.
        if not self.failed:
            self.container.mux(self.stream.encode())
        self.container.close()
