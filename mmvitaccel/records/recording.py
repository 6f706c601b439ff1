"""The option ``--record`` of benchmarks and tools."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from mmvitaccel.records.machine import CpuWatch, describe_machine, describe_versions
from mmvitaccel.records.record import CHECKOUT, Record, Row, git_state, path_of, write_record

OPTION = "--record"


def add_record_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--record [NAME]`` to a parser."""
    parser.add_argument(
        OPTION,
        nargs="?",
        const="",
        metavar="NAME",
        help="store rows, command, machine and commit in benchmarks/results/NAME.json, the "
        "source of the tables in the pages; default: the script's name",
    )


class Recording:
    """A run that is recorded if requested.

    Args:
        name: Value of ``--record``: None without it, '' for the script's name.
        script: ``__file__`` of the script.
        argv: Arguments of the script; None for those of the process.

    Raises:
        UserError: The name is invalid, or there is no git checkout.
    """

    def __init__(self, name: str | None, script: str, argv: Sequence[str] | None) -> None:
        self._path = None
        if name is None:
            return
        self._path = path_of(name or Path(script).stem.replace("_", "-"))
        self._git = git_state()
        self._command = command_of(script, sys.argv[1:] if argv is None else argv)
        self._start, self._cpu = time.monotonic(), CpuWatch()

    def save(self, rows: Sequence[Row]) -> None:
        """Write the record if requested, and print its path.

        Raises:
            ValueError: There are no rows, or a value cannot be written.
        """
        if self._path is None:
            return
        commit, uncommitted = self._git
        record = Record(
            command=self._command,
            date=datetime.now(timezone.utc).date().isoformat(),
            seconds=round(time.monotonic() - self._start, 1),
            commit=commit,
            uncommitted=uncommitted,
            machine=describe_machine(),
            versions=describe_versions(),
            others=self._cpu.share_of_others(),
            rows=[dict(row) for row in rows],
        )
        write_record(self._path, record)
        print(f"recorded in {self._path}; 'make pages' updates the pages")


def command_of(script: str, argv: Sequence[str]) -> str:
    """The command line in the root of the checkout, without ``--record``."""
    path = Path(script).resolve()
    if path.is_relative_to(CHECKOUT):
        path = path.relative_to(CHECKOUT)
    kept, after_option = [], False
    for argument in argv:
        is_name = after_option and not argument.startswith("-")
        after_option = argument == OPTION
        if not (after_option or is_name or argument.startswith(f"{OPTION}=")):
            kept.append(argument)
    return shlex.join(["python", path.as_posix(), *kept])
