"""The report as rows and as text."""

from __future__ import annotations

import argparse

from mmvitaccel import env
from mmvitaccel.env.packages import PACKAGES
from mmvitaccel.env.surroundings import (
    inspect_imports,
    inspect_mmcv_operators,
    inspect_surroundings,
)
from mmvitaccel.env.versions import (
    Row,
    inspect_doubles,
    inspect_package,
    inspect_python,
    inspect_torchvision_pair,
)
from mmvitaccel.version import __version__

MAIN_JOB = "the main job (train and test an EfficientViT detector)"


def inspect() -> list[Row]:
    """Return all rows of the report."""
    rows = [inspect_python(), Row("mmvitaccel", __version__, "ok")]
    rows += [inspect_package(package) for package in PACKAGES]
    rows += [
        *inspect_torchvision_pair(),
        *inspect_doubles(),
        *inspect_mmcv_operators(),
        *inspect_surroundings(),
    ]
    # The row of a missing or wrong package says more than a failing import.
    return rows if any(row.stops for row in rows) else [*rows, *inspect_imports()]


def render(rows: list[Row]) -> str:
    """Return the report as an aligned table, followed by the commands and a summary line.

    Args:
        rows: Rows from :func:`inspect`.
    """
    name, found = (max(len(getattr(row, key)) for row in rows) for key in ("name", "found"))
    lines = [
        f"{row.name:<{name}}  {row.found:<{found}}  {row.verdict:<8}  {row.remark}".rstrip()
        for row in rows
    ]
    fixes = [f"  {row.name}: {row.fix}" for row in rows if row.fix]
    if fixes:
        lines += ["", "To fix:", *fixes]
    stopping = [row.name for row in rows if row.stops]
    state = f"cannot run because of: {', '.join(stopping)}" if stopping else "can run"
    return "\n".join([*lines, "", f"{MAIN_JOB[0].upper()}{MAIN_JOB[1:]} {state}."])


def main() -> int:
    """Print the report and return the exit status."""
    argparse.ArgumentParser(prog="python -m mmvitaccel.env", description=env.__doc__).parse_args()
    rows = inspect()
    print(render(rows))
    return int(any(row.stops for row in rows))
