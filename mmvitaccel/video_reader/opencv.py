"""OpenCV as a backend: files, addresses and cameras."""

from __future__ import annotations

import cv2
import numpy as np

from mmvitaccel.video_reader.display import AS_STORED, of_angle, read_display
from mmvitaccel.video_reader.timing import Stamp, Unreadable

TIMEOUT = 10.0  # seconds of an address until it counts as broken off


class OpenCVCapture:
    """A video through ``cv2.VideoCapture``.

    Args:
        target: Path, address, or number of a camera.
        remote: Whether it is an address, which may fall silent.

    Raises:
        Unreadable: It cannot be opened.
    """

    damaged = 0  # reason: OpenCV leaves out damaged packets without a word

    def __init__(self, target: str | int, remote: bool = False) -> None:
        self._capture = _open(target, remote)
        self.fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        # reason: where a header has no count, OpenCV makes it of the duration and this rate
        self.duration = self.count / self.fps if self.fps > 0 else None
        # reason: whether OpenCV turns pictures itself depends on its build; here one place does
        self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
        known = read_display(target) if isinstance(target, str) and not remote else None
        # reason: 0 where it is mirrored too, which only the matrix of an MP4 tells
        self._display = known or of_angle(-self._capture.get(cv2.CAP_PROP_ORIENTATION_META))
        self._index = -1

    def grab(self) -> Stamp | None:
        """Go to the next frame."""
        if not self._capture.grab():
            return None
        self._index += 1
        return Stamp(self._index, self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3)

    def picture(self) -> np.ndarray:
        """The grabbed frame."""
        success, image = self._capture.retrieve()
        if not success:
            raise Unreadable(f"frame {self._index} could be found but not decoded")
        return self._display.upright(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))

    @property
    def turned(self) -> bool:
        """Whether the display matrix turns or mirrors the pictures."""
        return self._display != AS_STORED

    def close(self) -> None:
        """Release the source."""
        self._capture.release()


def _open(target: str | int, remote: bool) -> cv2.VideoCapture:
    if isinstance(target, int):
        ways = [(cv2.CAP_ANY, [])]
    else:
        limits = []
        if remote:
            ms = int(TIMEOUT * 1e3)
            limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, ms]
        # reason: FFmpeg first, for the others take a numbered file for the first of a series
        ways = [(cv2.CAP_FFMPEG, limits), (cv2.CAP_GSTREAMER, [])]
    for backend, options in ways:
        try:
            capture = cv2.VideoCapture(target, backend, options)
        except cv2.error:
            continue
        if capture.isOpened():
            return capture
        capture.release()
    raise Unreadable("")
