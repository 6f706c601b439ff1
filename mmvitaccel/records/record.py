"""A record: one run of a benchmark, as a JSON file below ``benchmarks/results``."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Union

from mmvitaccel.errors import UserError

CHECKOUT = Path(__file__).parents[2]
RESULTS = CHECKOUT / "benchmarks" / "results"

#: A row has named columns; a page chooses among them.
Cell = Union[str, int, float, bool, None]
Row = Mapping[str, Cell]


@dataclass(frozen=True)
class Record:
    """One run of a benchmark.

    Attributes:
        command: Command line, from the root of the checkout.
        date: Day of completion (UTC), such as ``2026-01-31``.
        seconds: Duration.
        commit: Hash of the commit that was checked out.
        uncommitted: Whether tracked files differed from that commit, results and pages aside.
        machine: From :func:`~mmvitaccel.records.machine.describe_machine`.
        versions: From :func:`~mmvitaccel.records.machine.describe_versions`.
        others: Share of the machine's CPU time used by other processes, 0 to 1; None if not
            available.
        rows: The measured values.
    """

    command: str
    date: str
    seconds: float
    commit: str
    uncommitted: bool
    machine: dict[str, Any]
    versions: dict[str, str]
    others: float | None
    rows: list[dict[str, Any]]


def path_of(name: str) -> Path:
    """File of a record.

    Raises:
        UserError: The name is invalid.
    """
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise UserError(
            f"{name!r} cannot name a record; use lower-case letters, digits and hyphens, as in "
            "'tome-train'."
        )
    return RESULTS / f"{name}.json"


def read_record(path: Path) -> Record:
    """Read a file that :func:`write_record` wrote.

    Raises:
        UserError: The file is not a record.
    """
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); run its benchmark again.") from error
    names = {field.name for field in fields(Record)}
    found = set(content) if isinstance(content, dict) else set()
    if found != names:
        raise UserError(
            f"{path} is not a record: it lacks {sorted(names - found)} and has "
            f"{sorted(found - names)} besides; run its benchmark again."
        )
    return Record(**content)


def write_record(path: Path, record: Record) -> None:
    """Write a record as JSON with one line per value, for readable diffs.

    Raises:
        ValueError: There are no rows, or a value is not text, a finite number or None.
    """
    check_rows(record.rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(record), indent=1, allow_nan=False) + "\n")


def check_rows(rows: Sequence[Row]) -> None:
    """Refuse rows that JSON or a page cannot represent.

    Raises:
        ValueError: See :func:`write_record`.
    """
    if not rows:
        raise ValueError("a record needs at least one row, but has none.")
    for number, row in enumerate(rows):
        for column, value in row.items():
            finite = not isinstance(value, float) or abs(value) < float("inf")
            if not finite or not isinstance(value, (str, int, float, type(None))):
                raise ValueError(f"row {number}, column {column!r}: {value!r} cannot be recorded.")


def git_state() -> tuple[str, bool]:
    """Commit of the checkout, and whether tracked files differ, except results and pages.

    Raises:
        UserError: The package is not in a git checkout.
    """
    commit = _git("rev-parse", "HEAD").strip()
    changed = _git(
        "status", "--porcelain", "--untracked-files=no", "--",
        ".", ":!benchmarks/results", ":!README.md", ":!*/README.md",
    )  # fmt: skip
    return commit, bool(changed.strip())


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(CHECKOUT), *arguments]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        why = getattr(error, "stderr", None) or error
        raise UserError(
            f"--record needs a git checkout, but the package's folder {CHECKOUT} is not one "
            f"({str(why).strip()}); use --json, or install with 'pip install -e' from a clone."
        ) from error
