"""Reads the work directory of a training or a test."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmvitaccel.errors import UserError

_PICTURES = (".png", ".jpg", ".jpeg")
_BESIDE = ("step", "epoch", "iter", "time", "data_time", "memory")  # in a line of scalars


@dataclass
class Run:
    """A work directory.

    Attributes:
        path: The folder.
        config: Text of the config; empty if there is none.
        tests: Metrics of each test by the name of its folder, latest last.
        curves: Steps and values of each logged figure.
        pictures: Files of drawn results.
        checkpoints: Checkpoint files.
        unread: Files that could not be read, with the reasons.
    """

    path: Path
    config: str = ""
    tests: dict[str, dict[str, Any]] = field(default_factory=dict)
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    pictures: list[Path] = field(default_factory=list)
    checkpoints: list[Path] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)


def read_run(path: str | Path) -> Run:
    """Read a work directory; the curves of several runs are joined.

    Raises:
        UserError: The path is not a folder, or has no files of a run.
    """
    folder = Path(path)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise UserError(f"{folder} {what}; give the work directory of a training or a test.")
    run = Run(folder)
    # mmengine writes the config beside the runs, and into the folder of each run
    configs = [*folder.glob("*/vis_data/config.py"), *folder.glob("*.py")]
    if configs:
        run.config = _text(max(configs, key=lambda p: p.stat().st_mtime), run)
    curves: dict[str, dict[float, float]] = defaultdict(dict)
    for log in sorted(p for p in folder.glob("*/*.json") if p.stem == p.parent.name):
        found = _object(log, run)
        if found:
            run.tests[log.parent.name] = found
    for log in sorted(folder.glob("*/vis_data/scalars.json")):
        for line in _lines(log, run):
            _add(curves, line)
    run.curves = {name: sorted(points.items()) for name, points in curves.items()}
    run.pictures = sorted(p for p in folder.rglob("*") if p.suffix.lower() in _PICTURES)
    run.checkpoints = sorted(folder.glob("*.pth"))
    if not (run.config or run.tests or run.curves or run.pictures or run.checkpoints):
        raise UserError(
            f"{folder} has no files of a run (config, log, picture or checkpoint); give the work "
            f"directory of tools/train.py or tools/test.py."
        )
    return run


def _add(curves: dict[str, dict[float, float]], line: dict[str, Any]) -> None:
    """Add a log line to the curves; the last value of a repeated step is used."""
    step = line.get("step")
    if not isinstance(step, (int, float)):
        return
    for name, value in line.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if number and name not in _BESIDE:
            curves[name][float(step)] = float(value)


def _text(path: Path, run: Run) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError as error:
        run.unread.append(f"{path.relative_to(run.path)}: {error.strerror or error}")
        return ""


def _object(path: Path, run: Run) -> dict[str, Any]:
    """Read a file with one JSON object; empty if it is invalid."""
    try:
        found = json.loads(_text(path, run) or "{}")
    except ValueError as error:
        run.unread.append(f"{path.relative_to(run.path)}: {error}")
        return {}
    return found if isinstance(found, dict) else {}


def _lines(path: Path, run: Run) -> Iterator[dict[str, Any]]:
    """Read a file with a JSON object per line; a killed run may leave an incomplete line."""
    broken = 0
    for line in _text(path, run).splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            broken += 1
            continue
        if isinstance(found, dict):
            yield found
    if broken:
        run.unread.append(f"{path.relative_to(run.path)}: {broken} lines are not JSON")
