"""Numbered images read as a video."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from mmvitaccel.errors import UserError
from mmvitaccel.video_reader.timing import Stamp

SUFFIXES = {".jpg", ".jpeg", ".jfif", ".jp2", ".png", ".bmp", ".webp", ".tif", ".tiff"}
SUFFIXES |= {".pgm", ".pnm", ".ppm"}
_LAST_NUMBER = re.compile(r"(\d+)(?=\D*$)")
_POINT = re.compile(r"\d\.$")
_MIN_PADDED_DIGITS = 4  # shot1.0007 is frame 7 of shot 1, but frame0.5 has a fractional number


class PictureCapture:
    """Reads images in the order of the numbers in their names.

    Args:
        target: A folder, or a pattern (``%06d.png``, ``*.png``) of files in one.

    Raises:
        UserError: If there are no images, if one has no whole number in its name, if two have the
            same number, or if they form several series.
    """

    fps = duration = None
    damaged = 0

    def __init__(self, target: str) -> None:
        self.files = numbered_files(target)
        self.count = len(self.files)
        self._next = 0

    def grab(self) -> Stamp | None:
        """Advance to the next image; return None at the end."""
        if self._next == len(self.files):
            return None
        self._next += 1
        return Stamp(self._next - 1, None)

    def picture(self) -> np.ndarray:
        """Read the current image, (H, W, 3) uint8 RGB.

        Raises:
            UserError: If it cannot be read.
        """
        path = self.files[self._next - 1]
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            size = path.stat().st_size if path.exists() else 0
            raise UserError(
                f"the picture {path} ({size} bytes) cannot be read: it is damaged or incomplete; "
                "get a new copy or remove it."
            )
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)

    def close(self) -> None:
        """Do nothing: no file is kept open."""


def numbered_files(target: str) -> list[Path]:
    """Return the images of a folder or pattern in the order of their numbers.

    Args:
        target: See :class:`PictureCapture`.

    Raises:
        UserError: See :class:`PictureCapture`.
    """
    path, numbers = Path(target), {}
    if path.is_dir():
        files = path.iterdir()
    elif place := re.search(r"%0?\d*d", path.name):
        before, after = path.name[: place.start()], path.name[place.end() :]
        named = re.compile(re.escape(before) + r"(\d+)" + re.escape(after))
        files = [p for p in _within(path.parent) if named.fullmatch(p.name)]
        numbers = {p: named.fullmatch(p.name).span(1) for p in files}
    else:
        files = path.parent.glob(path.name)
    files = [p for p in files if p.is_file() and p.suffix.lower() in SUFFIXES]
    files = [p for p in files if not p.name.startswith(".")]  # macOS writes ._0001.png
    if not files:
        raise UserError(
            f"{target} contains no pictures ({', '.join(sorted(SUFFIXES))}); give a folder or a "
            "pattern of numbered pictures, or a video file."
        )
    numbers = {file: numbers[file] for file in files} if numbers else _numbers(files, target)
    return [file for _, file in sorted(_by_number(numbers, target).items())]


def _within(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _numbers(files: list[Path], target: str) -> dict[Path, tuple[int, int]]:
    """Return the position of the last number in each file's name."""
    found = {file: _LAST_NUMBER.search(file.stem) for file in sorted(files)}
    without = next((file for file, number in found.items() if number is None), None)
    if without is not None:
        raise UserError(
            f"{target}: the picture {without.name} has no number in its name, so its position is "
            "unknown; number the pictures or give a pattern such as %06d.png."
        )
    fraction = first_fraction(file.stem for file in found)
    if fraction is not None:
        file = next(file for file in found if file.stem == fraction)
        raise UserError(
            f"{target}: the picture {file.name} has a decimal point in its number, but frame "
            "numbers are whole; rename the pictures, or if the number is the part after the point, "
            f"give a pattern such as {fraction[: found[file].start()]}%d{file.suffix}."
        )
    return {file: number.span() for file, number in found.items()}


def _by_number(numbers: dict[Path, tuple[int, int]], target: str) -> dict[int, Path]:
    """Map numbers to files, given the position of the number in each file's name."""
    series: dict[str, dict[int, Path]] = defaultdict(dict)
    for file, (start, end) in sorted(numbers.items()):
        number = int(file.name[start:end])
        kind = f"{file.stem[:start]}*{file.stem[end:]}"
        if number in series[kind]:
            raise UserError(
                f"{target}: {series[kind][number].name} and {file.name} have the same number; give "
                "a pattern that matches one of them, such as %06d.png."
            )
        series[kind][number] = file
    if len(series) > 1:
        raise UserError(
            f"{target} contains {len(series)} series of pictures "
            f"({', '.join(sorted(series)[:4])}); give a pattern that matches one of them."
        )
    return next(iter(series.values()))


def first_fraction(stems: Iterable[str]) -> str | None:
    """Return the first name whose last number follows a decimal point, as in ``frame0.5``.

    Numbers that all have the same width of four digits or more are whole numbers that follow
    another number, as in ``shot1.0007``; they do not count.

    Args:
        stems: File names without their suffix.
    """
    found = [(stem, number) for stem in stems if (number := _LAST_NUMBER.search(stem)) is not None]
    after_point = [(stem, n) for stem, n in found if _POINT.search(stem[: n.start()])]
    widths = {len(number[1]) for _, number in after_point}
    if len(widths) == 1 and min(widths) >= _MIN_PADDED_DIGITS:
        return None
    return after_point[0][0] if after_point else None
