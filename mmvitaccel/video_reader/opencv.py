"""OpenCV as a backend: files, addresses and cameras."""

from __future__ import annotations

import shlex

import cv2
import numpy as np

from mmvitaccel.errors import UserError
from mmvitaccel.video_reader.display import AS_STORED, of_angle, read_display
from mmvitaccel.video_reader.timing import Stamp, Unreadable

_PTS = getattr(cv2, "CAP_PROP_PTS", -1)  # reason: not in every OpenCV
_FRAME_TYPE = getattr(cv2, "CAP_PROP_FRAME_TYPE", -1)
_LOOKS = 8  # reason: a still picture coded again and again would be looked for each time
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
        self._index, self._start = -1, 0.0
        self._target = target if isinstance(target, str) and not remote else None
        self._last: np.ndarray | None = None
        self._looks = _LOOKS

    def grab(self) -> Stamp | None:
        """Go to the next frame."""
        if not self._capture.grab():
            return None
        self._index += 1
        if self._index == 0 and self.fps > 0:
            # reason: POS_MSEC begins at 0, and the duration of some containers before it
            self._start = max(self._capture.get(_PTS) / self.fps, 0.0)
        return Stamp(self._index, self._start + self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3)

    def picture(self) -> np.ndarray:
        """The grabbed frame."""
        image = _retrieved(self._capture)
        if image is None:
            raise Unreadable(f"frame {self._index} could be found but not decoded")
        if self._is_stale(image):
            raise UserError(
                f"the pictures of {self._target} have another size from frame {self._index} on, "
                "which OpenCV cannot follow; pip install 'mmvitaccel[video]', or give them one "
                f"size: ffmpeg -i {shlex.quote(self._target)} -vf scale=WIDTH:HEIGHT out.mp4."
            )
        return self._display.upright(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))

    def _is_stale(self, image: np.ndarray) -> bool:
        """Whether OpenCV repeats a picture in place of one of another size.

        It tells neither. A video may repeat pictures too, and the size changes where one is coded
        by itself; so such a one is looked at by a capture that has no earlier picture to repeat.
        """
        last, self._last = self._last, image
        intra = self._target is not None and self._capture.get(_FRAME_TYPE) == ord("I")
        if not intra or not self._looks or last is None or not np.array_equal(last, image):
            return False
        self._looks -= 1
        capture = _open(self._target, False)
        for _ in range(self._index + 1):
            capture.grab()
        fresh = _retrieved(capture)
        capture.release()
        return fresh is None or not np.array_equal(fresh, image)

    @property
    def turned(self) -> bool:
        """Whether the display matrix turns or mirrors the pictures."""
        return self._display != AS_STORED

    def close(self) -> None:
        """Release the source."""
        self._capture.release()


def _retrieved(capture: cv2.VideoCapture) -> np.ndarray | None:
    """The grabbed picture (H, W, 3) BGR; None of one that cannot be had."""
    try:
        return capture.retrieve()[1]
    except cv2.error:  # reason: where its size is another than the header's
        return None


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
