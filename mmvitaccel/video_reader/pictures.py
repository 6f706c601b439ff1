"""Numbered pictures as a video."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np

from mmvitaccel.errors import UserError
from mmvitaccel.video_reader.timing import Stamp

SUFFIXES = {".jpg", ".jpeg", ".jfif", ".jp2", ".png", ".bmp", ".webp", ".tif", ".tiff"}
SUFFIXES |= {".pgm", ".pnm", ".ppm"}
_NUMBER = re.compile(r"(\d+)(?=\D*$)")


class PictureCapture:
    """Pictures in order of their numbers.

    Args:
        target: A folder, or a pattern (``%06d.png``, ``*.png``) of files in one.

    Raises:
        UserError: There are none, they have no numbers, or there are several series of them.
    """

    fps = duration = None
    damaged = 0

    def __init__(self, target: str) -> None:
        self.files = numbered_files(target)
        self.count = len(self.files)
        self._next = 0

    def grab(self) -> Stamp | None:
        """Go to the next picture."""
        if self._next == len(self.files):
            return None
        self._next += 1
        return Stamp(self._next - 1, None)

    def picture(self) -> np.ndarray:
        """Read it.

        Raises:
            UserError: It cannot be read.
        """
        path = self.files[self._next - 1]
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            size = path.stat().st_size if path.exists() else 0
            raise UserError(
                f"the picture {path} ({size} bytes) cannot be read: it is damaged or incomplete; "
                "get it again or take it away."
            )
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)

    def close(self) -> None:
        """Nothing is held."""


def numbered_files(target: str) -> list[Path]:
    """The pictures that a folder or a pattern names, by number; see :class:`PictureCapture`."""
    path = Path(target)
    if path.is_dir():
        files = path.iterdir()
    elif number := re.search(r"%0?\d*d", path.name):
        before, after = path.name[: number.start()], path.name[number.end() :]
        named = re.compile(re.escape(before) + r"\d+" + re.escape(after))
        files = [p for p in _within(path.parent) if named.fullmatch(p.name)]
    else:
        files = path.parent.glob(path.name)
    files = [p for p in files if p.is_file() and p.suffix.lower() in SUFFIXES]
    files = [p for p in files if not p.name.startswith(".")]
    if not files:
        raise UserError(
            f"{target} holds no pictures ({', '.join(sorted(SUFFIXES))}); give a folder or a "
            "pattern of numbered pictures, or a video file."
        )
    return [series for _, series in sorted(_series(files, target).items())]


def _within(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _series(files: list[Path], target: str) -> dict[int, Path]:
    """Pictures by number: the last one in their names."""
    series: dict[str, dict[int, Path]] = defaultdict(dict)
    for file in sorted(files):
        number = _NUMBER.search(file.stem)
        if number is None:
            raise UserError(
                f"{target}: the picture {file.name} has no number in its name, so that its place "
                "is unknown; number the pictures or give a pattern such as %06d.png."
            )
        kind = f"{file.stem[: number.start()]}*{file.stem[number.end() :]}"
        if int(number[1]) in series[kind]:
            raise UserError(
                f"{target}: {series[kind][int(number[1])].name} and {file.name} have the same "
                "number; give a pattern that names one of them, such as %06d.png."
            )
        series[kind][int(number[1])] = file
    if len(series) > 1:
        raise UserError(
            f"{target} holds {len(series)} series of pictures ({', '.join(sorted(series)[:4])}); "
            "give a pattern that names one of them."
        )
    return next(iter(series.values()))
