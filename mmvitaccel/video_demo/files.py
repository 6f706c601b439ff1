"""Output files of the demo: a video and a table that get their names once they are complete."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from mmvitaccel.errors import UserError
from mmvitaccel.video_reader import VideoWriter
from mmvitaccel.whole_files import check_folder


def check_output(path: Path, suffix: str, option: str, source: object) -> None:
    """Check, before any work, that a file can be written.

    Raises:
        UserError: The path has another suffix or is the source, or its folder is not writable.
    """
    if path.suffix.lower() != suffix:
        raise UserError(f"{option} {path}: give a name that ends in {suffix}.")
    if path.is_dir():
        raise UserError(f"{option} {path} is a folder; give the name of a file.")
    if path.exists() and Path(str(source)).exists() and os.path.samefile(path, str(source)):
        raise UserError(f"{option} {path} is the source itself; give another name.")
    check_folder(path.absolute().parent, 0, f"{option} {path.name}")


class FinishedVideo:
    """A video that is written under a temporary name, and renamed when it is closed.

    Args:
        path: The mp4; its folder is created.
        fps: Frames per second.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self.path, self.frames = path, 0
        path.parent.mkdir(parents=True, exist_ok=True)
        # OpenCV chooses the format by the suffix
        self._part = path.with_name(f"{path.stem}.part.mp4")
        self._writer = VideoWriter(self._part, fps)

    def __enter__(self) -> FinishedVideo:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, image: np.ndarray) -> None:
        """Append a frame (H, W, 3) uint8 RGB."""
        self._writer.add(image)
        self.frames += 1

    def close(self) -> None:
        """Finish the file; without frames, or if it cannot be finished, it is removed."""
        try:
            self._writer.close()
        except BaseException:
            self._part.unlink(missing_ok=True)
            raise
        if self.frames:
            os.replace(self._part, self.path)
        else:
            self._part.unlink(missing_ok=True)


class FinishedTable:
    """A csv that is written under a temporary name, and renamed when it is closed.

    Args:
        path: The file; its folder is created.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._part = path.with_name(f"{path.name}.part")
        self._file: TextIO = self._part.open("w", newline="", encoding="utf-8")
        self._writer: csv.DictWriter | None = None

    def __enter__(self) -> FinishedTable:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row; the keys of the first row are the columns."""
        if self._writer is None:
            self._writer = csv.DictWriter(self._file, fieldnames=list(row))
            self._writer.writeheader()
        self._writer.writerow(row)

    def close(self) -> None:
        """Finish the file; without rows, it is removed."""
        self._file.close()
        if self._writer is not None:
            os.replace(self._part, self.path)
        else:
            self._part.unlink(missing_ok=True)
