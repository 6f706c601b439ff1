"""Draw latency against streams, a diagram for each rate, from records of streams_held.py.

python benchmarks/streams_held_plot.py held.png streams-held
python benchmarks/streams_held_plot.py held.png streams-held-ray --rates 2 5
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmvitaccel.analysis.sweep.plot import Line, Panel, save_panels
from mmvitaccel.errors import UserError, one_sentence_errors
from mmvitaccel.records.record import path_of, read_record


def panels(rows: Sequence[Mapping[str, Any]]) -> list[Panel]:
    """Make a diagram for each rate, with a line for each detector, way and mode."""
    return [
        Panel(
            f"streams at {rate:g} frames/s",
            "p90 of an answer, ms",
            _lines([row for row in rows if row["rate"] == rate]),
            (f"one frame's time, {1e3 / rate:g} ms", 1e3 / rate),
        )
        for rate in dict.fromkeys(row["rate"] for row in rows)
    ]


def _lines(rows: Sequence[Mapping[str, Any]]) -> list[Line]:
    points: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        way = "" if row["way"] == "worker" else f", {row['way']}"
        own = points.setdefault(f"{row['model']} {row['mode']}{way}", [])
        if row["p90_ms"] is not None:
            own.append((row["streams"], row["p90_ms"]))
    return [Line(label, *zip(*sorted(own))) for label, own in points.items() if own]


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Read and plot."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("picture", type=Path, help="output PNG")
    parser.add_argument("records", nargs="+", metavar="RECORD")
    parser.add_argument("--rates", type=float, nargs="+", help="frames per second; default: all")
    args = parser.parse_args(argv)
    rows: list[Mapping[str, Any]] = []
    for name in args.records:
        if not path_of(name).is_file():
            raise UserError(
                f"record {name!r} was not made yet; 'python benchmarks/run_all.py {name}' makes it."
            )
        rows += read_record(path_of(name)).rows
    rows = [row for row in rows if args.rates is None or row["rate"] in args.rates]
    if not rows:
        raise UserError(f"no row of {', '.join(args.records)} has a rate of {args.rates}.")
    save_panels(panels(rows), args.picture)
    print(args.picture)


if __name__ == "__main__":
    main()
