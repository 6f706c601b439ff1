"""Display matrices of videos: how stored images are rotated and mirrored for display."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

import numpy as np

from mmvitaccel.video_reader.signature import mp4_boxes


class Display(NamedTuple):
    """Signs of the 2 x 2 part of a display matrix that rotates and mirrors.

    A stored pixel (x, y) is shown at (a x + c y, b x + d y). Two of the four values are 0, the
    others 1 or -1.
    """

    a: int
    b: int
    c: int
    d: int

    def upright(self, image: np.ndarray) -> np.ndarray:
        """Return a stored image (H, W, 3) as it is displayed, contiguous.

        The result is (W, H, 3) if the matrix rotates by 90 degrees.
        """
        if self == AS_STORED:
            return image
        if self.a:
            across, down = self.a, self.d
        else:
            image = image.swapaxes(0, 1)
            across, down = self.c, self.b
        return np.ascontiguousarray(image[::down, ::across])


AS_STORED = Display(1, 0, 0, 1)
_TURNS = (AS_STORED, Display(0, -1, 1, 0), Display(-1, 0, 0, -1), Display(0, 1, -1, 0))


def of_angle(degrees: float) -> Display:
    """Return the display of a counterclockwise rotation, rounded to a multiple of 90 degrees."""
    return _TURNS[round(degrees / 90) % 4]


def of_matrix(matrix: Sequence[int]) -> Display | None:
    """Return the display of a container's matrix of nine numbers.

    Returns:
        None if the matrix does not rotate by a multiple of 90 degrees.
    """
    found = Display(*(int(np.sign(matrix[place])) for place in (0, 1, 3, 4)))
    straight = found.a and found.d and not (found.b or found.c)
    on_the_side = found.b and found.c and not (found.a or found.d)
    return found if straight or on_the_side else None


def read_display(path: str) -> Display | None:
    """Read the display matrix of an MP4's first video track from its header.

    OpenCV only reports an angle, which cannot describe a mirrored image.

    Returns:
        None if the file cannot be read, is not an MP4, has no video track, or has a matrix that
        does not rotate by a multiple of 90 degrees.
    """
    try:
        with open(path, "rb") as file:
            file.seek(0, 2)
            return _of_movie(file, file.tell())
    except (OSError, struct.error):
        return None


def _of_movie(file: BinaryIO, end: int) -> Display | None:
    for start, stop in _boxes(file, 0, end, b"moov"):
        whole = next(
            (_matrix(file, at, 36, 48) for at, _ in _boxes(file, start, stop, b"mvhd")), None
        )
        for track in _boxes(file, start, stop, b"trak"):
            if _is_video(file, *track):
                for at, _ in _boxes(file, *track, b"tkhd"):
                    own = _matrix(file, at, 40, 52)
                    return of_matrix((own if whole is None else own @ whole).flatten())
    return None


def _is_video(file: BinaryIO, start: int, stop: int) -> bool:
    for media in _boxes(file, start, stop, b"mdia"):
        for at, _ in _boxes(file, *media, b"hdlr"):
            file.seek(at + 8)
            return file.read(4) == b"vide"
    return False


def _matrix(file: BinaryIO, start: int, place: int, place_of_version_1: int) -> np.ndarray:
    """Read the (3, 3) matrix of a header box; the first byte of the box is its version."""
    file.seek(start)
    version = file.read(1)
    file.seek(start + (place_of_version_1 if version == b"\1" else place))
    return np.array(struct.unpack(">9i", file.read(36)), np.float64).reshape(3, 3)


def _boxes(file: BinaryIO, start: int, stop: int, name: bytes) -> Iterator[tuple[int, int]]:
    """Yield the start and end of the contents of each box ``name`` between two file offsets."""
    return ((at, end) for found, at, end in mp4_boxes(file, start, stop) if found == name)
