"""Output of a sweep: a table, a CSV file, a JSON file and a recommendation."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from mmvitaccel.analysis.sweep.plot import plot_sweeps
from mmvitaccel.analysis.sweep.results import (
    COSTS,
    PointResult,
    dense_of,
    pareto_front,
    recommend,
)
from mmvitaccel.whole_files import whole_file


def table(results: Sequence[PointResult], metric: str) -> str:
    """The points as Markdown; ``*`` marks points on a Pareto front."""
    dense = dense_of(results)
    fronts = {cost: [r.point for r in pareto_front(results, metric, cost)] for cost in COSTS}
    heads = [cell for label in COSTS.values() for cell in (label, "dense / this", "front")]
    lines = [
        f"| point | {metric} | {' | '.join(heads)} |",
        f"| --- | ---: |{' ---: | ---: | :---: |' * len(COSTS)}",
    ]
    for result in results:
        cells = [result.point.name, f"{result.value(metric):.4g}"]
        for cost in COSTS:
            value, whole = result.value(cost), dense.value(cost)
            ratio = f"{whole / value:.2f}" if value and whole else ""
            cells += ["" if value is None else f"{value:.4g}", ratio]
            cells.append("*" if result.point in fronts[cost] else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def advice(results: Sequence[PointResult], metric: str, loss: float) -> str:
    """The cheapest point within a loss of accuracy, with the lines to use it."""
    dense, blocks = dense_of(results), []
    chosen: dict[str, PointResult] = {}
    for cost, label in COSTS.items():
        best = recommend(results, metric, cost, loss)
        if best is None:
            blocks.append(f"No time was measured, so there is no recommendation by {label}.")
        elif best.point == dense.point:
            blocks.append(f"By {label}: dense; no cheaper point loses at most {loss:.1%}.")
        else:
            blocks.append(
                f"By {label}: {best.point.name}, {best.value(cost):.4g} instead of "
                f"{dense.value(cost):.4g} for dense; {metric} {best.value(metric):.4g}, dense "
                f"{dense.value(metric):.4g} (at most {loss:.1%} of it may be lost)."
            )
            chosen[best.point.name] = best
    for name, best in chosen.items():
        blocks.append(
            f"{name}, in a config that inherits from this one:\n\n{best.point.config_lines()}\n\n"
            f"or on the command line:\n\n--cfg-options {best.point.command_line()}"
        )
    return "\n\n".join(blocks)


def write(
    results: Sequence[PointResult],
    metric: str,
    loss: float,
    folder: Path,
    others: dict[str, Sequence[PointResult]],
) -> list[Path]:
    """Write ``sweep.csv``, ``sweep.json`` and ``sweep.png``; returns the files.

    Args:
        results: Results of the sweep.
        metric: Name of the accuracy metric.
        loss: See :func:`~mmvitaccel.analysis.sweep.results.recommend`.
        folder: Folder of the sweep.
        others: Results of other sweeps by name, added to the plot.

    Raises:
        UserError: A file cannot be written.
    """
    files = [folder / f"sweep.{suffix}" for suffix in ("csv", "json", "png")]
    best = {cost: recommend(results, metric, cost, loss) for cost in COSTS}
    content = dict(
        metric=metric,
        loss=loss,
        recommended={cost: r and r.point.name for cost, r in best.items()},
        fronts={c: [r.point.name for r in pareto_front(results, metric, c)] for c in COSTS},
        points=[dict(name=r.point.name, **r.to_json()) for r in results],
    )
    for file, text in zip(files, (_csv(results), json.dumps(content, indent=2) + "\n")):
        with whole_file(file) as opened:
            opened.write(text.encode())
    plot_sweeps({**others, str(folder): results}, metric, files[2])
    return files


def _csv(results: Sequence[PointResult]) -> str:
    """CSV text: a row for each point, a column for each numeric figure."""
    names = [n for r in results for n in r.figures if r.value(n) is not None]
    figures = list(dict.fromkeys(names))
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["name", "method", "policy", "k", "r", "threshold", *figures])
    for result in results:
        point = result.point
        own = [point.name, point.method, point.policy, point.k, point.r, point.threshold]
        rows.writerow([*own, *(result.value(name) for name in figures)])
    return text.getvalue()
