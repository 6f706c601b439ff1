"""How a video is to be shown: its display matrix, which turns and mirrors the stored pictures."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

import numpy as np


class Display(NamedTuple):
    """The part of a display matrix that turns and mirrors, by signs.

    A stored pixel (x, y) is shown at (a x + c y, b x + d y); two of the four are 0.
    """

    a: int
    b: int
    c: int
    d: int

    def upright(self, image: np.ndarray) -> np.ndarray:
        """A stored picture (H, W, 3) as it is shown; contiguous."""
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
    """Turned counterclockwise, by the nearest quarter."""
    return _TURNS[round(degrees / 90) % 4]


def of_matrix(matrix: Sequence[int]) -> Display | None:
    """By the nine numbers of a container; None of one that is no quarter turn."""
    found = Display(*(int(np.sign(matrix[place])) for place in (0, 1, 3, 4)))
    straight = found.a and found.d and not (found.b or found.c)
    on_the_side = found.b and found.c and not (found.a or found.d)
    return found if straight or on_the_side else None


def read_display(path: str) -> Display | None:
    """By the header of an MP4's first video track.

    OpenCV tells an angle alone, which a mirrored matrix has not.

    Returns:
        None where the file is no MP4, has no such track, or a matrix that is no quarter turn.
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
    """The (3, 3) matrix in a header, whose first byte is its version."""
    file.seek(start)
    version = file.read(1)
    file.seek(start + (place_of_version_1 if version == b"\1" else place))
    return np.array(struct.unpack(">9i", file.read(36)), np.float64).reshape(3, 3)


def _boxes(file: BinaryIO, start: int, stop: int, name: bytes) -> Iterator[tuple[int, int]]:
    """Where the contents of the boxes of a name begin and end, among those of a stretch."""
    while start + 8 <= stop:
        file.seek(start)
        size, found = struct.unpack(">I4s", file.read(8))
        head = 8
        if size == 1:
            (size,) = struct.unpack(">Q", file.read(8))
            head = 16
        size = stop - start if size == 0 else size
        if size < head or start + size > stop:
            return
        if found == name:
            yield start + head, start + size
        start += size
