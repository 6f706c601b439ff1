"""The folder of a sweep: its settings, and a file for each finished point."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmvitaccel.analysis.sweep.operating_point import OperatingPoint
from mmvitaccel.analysis.sweep.results import PointResult
from mmvitaccel.errors import UserError
from mmvitaccel.whole_files import whole_file

SETTINGS = "settings.json"


class SweepFolder:
    """Results of one sweep on disk; each file is written atomically.

    Args:
        path: The folder, created with the first file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def claim(self, settings: Mapping[str, Any]) -> None:
        """Create the folder for these settings, or continue an existing sweep.

        Args:
            settings: Properties common to all points, such as config and weights.

        Raises:
            UserError: The folder has a sweep with other settings, or other files.
        """
        file = self.path / SETTINGS
        if file.is_file():
            held = _read(file)
            differ = [key for key, value in settings.items() if held.get(key) != value]
            if differ:
                raise UserError(
                    f"{self.path} holds another sweep: its {' and '.join(differ)} "
                    f"{'is' if len(differ) == 1 else 'are'} not what was given now (see its "
                    f"{SETTINGS}); name another --out, or delete it."
                )
            return
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            what = "is not empty" if self.path.is_dir() else "is a file"
            raise UserError(
                f"{self.path} {what} and holds no sweep (it has no {SETTINGS}); name another --out."
            )
        _write(file, settings)

    def done(self, point: OperatingPoint) -> PointResult | None:
        """The result of a point; None if it is not measured yet."""
        file = self._file(point)
        return _result(file) if file.is_file() else None

    def keep(self, result: PointResult) -> None:
        """Write a point's result."""
        _write(self._file(result.point), result.to_json())

    def results(self) -> list[PointResult]:
        """All results, in the order of measurement.

        Raises:
            UserError: The folder has no sweep, or no point is finished.
        """
        if not (self.path / SETTINGS).is_file():
            raise UserError(f"{self.path} holds no sweep (it has no {SETTINGS}).")
        files = sorted((self.path / "points").glob("*.json"), key=lambda p: p.stat().st_mtime_ns)
        if not files:
            raise UserError(f"{self.path}: no point of this sweep is finished; run it first.")
        return [_result(file) for file in files]

    def test_dir(self, point: OperatingPoint) -> Path:
        """Log folder of a point's test."""
        return self.path / "tests" / point.file_name

    def _file(self, point: OperatingPoint) -> Path:
        return self.path / "points" / f"{point.file_name}.json"


def _result(file: Path) -> PointResult:
    try:
        return PointResult.from_json(_read(file))
    except (KeyError, TypeError) as error:
        raise UserError(f"{file} is not a result of a sweep ({error!r}); delete it.") from error


def _read(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        raise UserError(f"{file} cannot be read ({error}); delete it.") from error


def _write(file: Path, content: Mapping[str, Any]) -> None:
    with whole_file(file) as opened:
        opened.write((json.dumps(content, indent=2) + "\n").encode())
