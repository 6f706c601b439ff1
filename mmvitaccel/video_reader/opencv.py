"""The OpenCV backend: files, URLs and cameras."""

from __future__ import annotations

import shlex

import cv2
import numpy as np

from mmvitaccel.errors import UserError
from mmvitaccel.video_reader.display import AS_STORED, of_angle, read_display
from mmvitaccel.video_reader.timing import Stamp, Unreadable

_PTS = getattr(cv2, "CAP_PROP_PTS", -1)  # older versions of OpenCV do not have it
_FRAME_TYPE = getattr(cv2, "CAP_PROP_FRAME_TYPE", -1)
# Checks for stale images in a video: each decodes the file from its beginning, and a still scene
# would be checked at every keyframe.
_MAX_CHECKS = 8
TIMEOUT = 10.0  # seconds without data after which a URL counts as disconnected


class OpenCVCapture:
    """Decodes a video with ``cv2.VideoCapture``.

    Args:
        target: Path, URL, or number of a camera.
        remote: Whether it is a URL, which is then read with a timeout.

    Raises:
        Unreadable: If it cannot be opened.
    """

    damaged = 0  # OpenCV skips damaged packets without reporting them

    def __init__(self, target: str | int, remote: bool = False) -> None:
        self._capture = _open(target, remote)
        self.fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        # If the header has no count, OpenCV calculates it as duration times rate.
        self.duration = self.count / self.fps if self.fps > 0 else None
        # Not every build of OpenCV rotates, so OpenCV's rotation is switched off.
        self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
        known = read_display(target) if isinstance(target, str) and not remote else None
        # The angle is 0 if the image is mirrored as well: only the matrix of an MP4 tells.
        self._display = known or of_angle(-self._capture.get(cv2.CAP_PROP_ORIENTATION_META))
        self._index, self._start = -1, 0.0
        self._target = target if isinstance(target, str) and not remote else None
        self._last: np.ndarray | None = None
        self._checks_left = _MAX_CHECKS

    def grab(self) -> Stamp | None:
        """Advance to the next frame; return None at the end."""
        if not self._capture.grab():
            return None
        self._index += 1
        if self._index == 0 and self.fps > 0:
            # POS_MSEC begins at 0, but the duration of some containers begins before that.
            self._start = max(self._capture.get(_PTS) / self.fps, 0.0)
        return Stamp(self._index, self._start + self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3)

    def picture(self) -> np.ndarray:
        """Return the current frame, (H, W, 3) uint8 RGB, upright.

        Raises:
            Unreadable: If it cannot be decoded.
            UserError: If the size of the images changes within the video.
        """
        image = _retrieved(self._capture)
        if image is None:
            raise Unreadable(f"frame {self._index} could be found but not decoded")
        if self._is_stale(image):
            raise UserError(
                f"the pictures of {self._target} change their size at frame {self._index}, which "
                "OpenCV does not support; pip install 'mmvitaccel[video]', or convert them to one "
                f"size: ffmpeg -i {shlex.quote(self._target)} -vf scale=WIDTH:HEIGHT out.mp4."
            )
        return self._display.upright(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))

    def _is_stale(self, image: np.ndarray) -> bool:
        """Check whether OpenCV repeated the last image instead of decoding one of another size.

        OpenCV reports neither. The size can only change at an intra frame, and a video can repeat
        an image too. An intra frame that equals the last image is therefore decoded again by a new
        capture, which has no earlier image to repeat.
        """
        last, self._last = self._last, image
        intra = self._target is not None and self._capture.get(_FRAME_TYPE) == ord("I")
        if not intra or not self._checks_left or last is None or not np.array_equal(last, image):
            return False
        self._checks_left -= 1
        capture = _open(self._target, False)
        for _ in range(self._index + 1):
            capture.grab()
        fresh = _retrieved(capture)
        capture.release()
        return fresh is None or not np.array_equal(fresh, image)

    @property
    def turned(self) -> bool:
        """Whether the display matrix rotates or mirrors the images."""
        return self._display != AS_STORED

    def close(self) -> None:
        """Release the source."""
        self._capture.release()


def _retrieved(capture: cv2.VideoCapture) -> np.ndarray | None:
    """Decode the current image, (H, W, 3) BGR; return None if that fails."""
    try:
        return capture.retrieve()[1]
    except cv2.error:  # the size differs from the header's
        return None


def _open(target: str | int, remote: bool) -> cv2.VideoCapture:
    if isinstance(target, int):
        ways = [(cv2.CAP_ANY, [])]
    else:
        limits = []
        if remote:
            ms = int(TIMEOUT * 1e3)
            limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, ms]
        # FFmpeg first: the others read a numbered file as the first of a series.
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
