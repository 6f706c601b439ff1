"""Plots F, IoU and AUC of benchmarks/real_video.py against multiply-adds and milliseconds.

    python benchmarks/real_video_plot.py PNG real-video-128 real-video-64 real-video-times
    python benchmarks/real_video_plot.py out.png out.json

The rows come from records by name, or from files that ``--json`` wrote. Scores and multiply-adds of
a variant are those of the first measurement that has it, milliseconds those of the first that timed
it. Without milliseconds, their column is left out.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmvitaccel.analysis.sweep.plot import Line, Panel, save_panels
from mmvitaccel.errors import UserError, one_sentence_errors
from mmvitaccel.records.record import path_of, read_record

SCORES = {"f": "F, %", "iou": "IoU, %", "auc": "AUC, %"}
COSTS = {"gmacs": "G multiply-adds a frame", "ms": "ms of a frame after the first"}
_BUDGET = re.compile(r" k=\d+")
Rows = dict[str, dict[str, Any]]  # rows by variant


def gathered(parts: Sequence[Sequence[Mapping[str, Any]]], videos: str) -> Rows:
    """Collect the rows of some videos from several measurements, one for each variant.

    Raises:
        UserError: There are none.
    """
    found: Rows = {}
    for row in (row for part in parts for row in part if row.get("videos") == videos):
        own = found.setdefault(row["variant"], dict(row))
        own["ms"] = row["ms"] if own["ms"] is None else own["ms"]
    if not found:
        raise UserError(f"no row of what was given is of videos {videos!r}; give records of them.")
    return found


def panels(rows: Rows) -> list[Panel]:
    """Make a diagram for each score and cost, with a line for each method over its budgets."""
    costs = [cost for cost in COSTS if any(row[cost] is not None for row in rows.values())]
    return [
        Panel(COSTS[cost], label, _lines(rows, score, cost))
        for score, label in SCORES.items()
        for cost in costs
    ]


def _lines(rows: Rows, score: str, cost: str) -> list[Line]:
    ways: dict[str, list[dict[str, Any]]] = {}
    for variant, row in rows.items():
        way = "ToMe" if re.fullmatch(r"ToMe r=\d+", variant) else _BUDGET.sub("", variant)
        ways.setdefault(way, []).append(row)
    lines = []
    for way, own in ways.items():
        points = sorted((row[cost], row[score]) for row in own if row[cost] is not None)
        style = "k*" if way == "dense" else "x:" if way.startswith("random") else "o-"
        lines.append(Line(way, *zip(*points), style) if points else Line(way, (), (), style))
    return lines


def read(name: str) -> list[dict[str, Any]]:
    """Read the rows of a JSON file or a record.

    Raises:
        UserError: Neither exists.
    """
    if name.endswith(".json"):
        try:
            return json.loads(Path(name).read_text())
        except (OSError, ValueError) as error:
            raise UserError(
                f"{name} is not a file that real_video.py --json wrote: {error}"
            ) from None
    if not path_of(name).is_file():
        raise UserError(
            f"record {name!r} was not made yet; 'python benchmarks/run_all.py {name}' makes it."
        )
    return read_record(path_of(name)).rows


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Read and plot."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("picture", type=Path, help="output PNG")
    parser.add_argument("measured", nargs="+", metavar="RECORD", help="records, or JSON files")
    parser.add_argument("--videos", default="as they are", help="'as they are' or 'spliced'")
    args = parser.parse_args(argv)
    drawn = panels(gathered([read(name) for name in args.measured], args.videos))
    save_panels(drawn, args.picture, rows=len(SCORES))
    print(args.picture)


if __name__ == "__main__":
    main()
