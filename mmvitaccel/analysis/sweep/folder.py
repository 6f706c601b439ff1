"""A sweep's folder: what it is of, and a file for each point that is done."""

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
    """Results of one sweep on the disk; each is written whole or not at all.

    Args:
        path: Made when the first thing is written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def claim(self, settings: Mapping[str, Any]) -> None:
        """Make the folder one of these settings, or go on with it.

        Args:
            settings: What all points share, such as config and weights.

        Raises:
            UserError: The folder holds a sweep of others, or something else.
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
        """The result of a point; None where it has to be measured."""
        file = self._file(point)
        return _result(file) if file.is_file() else None

    def keep(self, result: PointResult) -> None:
        """Write a point's result."""
        _write(self._file(result.point), result.to_json())

    def results(self) -> list[PointResult]:
        """All that is there, in the order in which it was measured.

        Raises:
            UserError: The folder holds no sweep, or none of its points is done.
        """
        if not (self.path / SETTINGS).is_file():
            raise UserError(f"{self.path} holds no sweep (it has no {SETTINGS}).")
        files = sorted((self.path / "points").glob("*.json"), key=lambda p: p.stat().st_mtime_ns)
        if not files:
            raise UserError(f"{self.path}: no point of this sweep is done; let it run first.")
        return [_result(file) for file in files]

    def test_dir(self, point: OperatingPoint) -> Path:
        """Where a point's test writes its log."""
        return self.path / "tests" / point.file_name

    def _file(self, point: OperatingPoint) -> Path:
        return self.path / "points" / f"{point.file_name}.json"


def _result(file: Path) -> PointResult:
    try:
        return PointResult.from_json(_read(file))
    except (KeyError, TypeError) as error:
        raise UserError(f"{file} is no result of a sweep ({error!r}); delete it.") from error


def _read(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        raise UserError(f"{file} cannot be read ({error}); delete it.") from error


def _write(file: Path, content: Mapping[str, Any]) -> None:
    with whole_file(file) as opened:
        opened.write((json.dumps(content, indent=2) + "\n").encode())
