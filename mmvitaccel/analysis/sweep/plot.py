"""Plots of accuracy against cost, side by side."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib

from mmvitaccel.analysis.sweep.operating_point import DENSE
from mmvitaccel.analysis.sweep.results import COSTS, PointResult, pareto_front
from mmvitaccel.whole_files import whole_file


@dataclass(frozen=True)
class Line:
    """Points of one method.

    Attributes:
        label: Text in the legend.
        x: Cost of the points.
        y: Accuracy of the points.
        style: Format string of matplotlib.
        options: Further arguments of ``Axes.plot``.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    style: str = "o-"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Panel:
    """One diagram.

    Attributes:
        xlabel: Label of the x axis.
        ylabel: Label of the y axis.
        lines: Lines in drawing order.
        level: Label and height of a dotted line across it.
    """

    xlabel: str
    ylabel: str
    lines: Sequence[Line]
    level: tuple[str, float] | None = None


def save_panels(panels: Sequence[Panel], path: Path, rows: int = 1) -> None:
    """Draw diagrams into a PNG file, side by side or in rows of equal length.

    Diagrams in a row share their y axis.

    Raises:
        UserError: The file cannot be written.
    """
    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = len(panels) // rows
    size = (5.5 * columns, 4.2 * rows)
    figure, axes = pyplot.subplots(rows, columns, figsize=size, squeeze=False, sharey="row",
                                   layout="constrained")  # fmt: skip
    for axis, panel in zip(axes.flat, panels):
        for line in panel.lines:
            axis.plot(line.x, line.y, line.style, label=line.label, **line.options)
        if panel.level is not None:
            label, height = panel.level
            axis.axhline(height, color="k", linestyle=":", label=label)
        axis.set(xlabel=panel.xlabel, ylabel=panel.ylabel)
        axis.grid(alpha=0.3)
        if axis.get_legend_handles_labels()[1]:
            axis.legend(fontsize="small")
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=120)
    pyplot.close(figure)
    with whole_file(path) as file:
        file.write(drawn.getvalue())


def plot_sweeps(sweeps: dict[str, Sequence[PointResult]], metric: str, path: Path) -> None:
    """Plot accuracy against every measured cost, with the Pareto front of each sweep.

    Args:
        sweeps: Results by the sweep's name.
        metric: Name of the accuracy metric.
        path: The PNG.
    """
    panels = [
        Panel(label, metric, [ln for name, own in sweeps.items() for ln in
              _lines(own, metric, cost, f"{name}: " if len(sweeps) > 1 else "")])
        for cost, label in COSTS.items()
        if any(r.value(cost) is not None for own in sweeps.values() for r in own)
    ]  # fmt: skip
    save_panels(panels, path)


def _lines(results: Sequence[PointResult], metric: str, cost: str, prefix: str) -> list[Line]:
    lines = []
    able = [r for r in results if r.value(cost) is not None]
    for method in dict.fromkeys((r.point.method, r.point.policy) for r in able):
        own = [r for r in able if (r.point.method, r.point.policy) == method]
        own.sort(key=lambda r: r.value(cost))
        control = own[0].point.is_control
        style = "*" if method[0] == DENSE else "x:" if control else "o-"
        options = dict(markersize=13) if method[0] == DENSE else {}
        lines.append(
            _line(prefix + " ".join(filter(None, method)), own, metric, cost, style, options)
        )
    front = pareto_front(results, metric, cost)
    options = dict(color="0.4", linewidth=5, alpha=0.3, zorder=0, drawstyle="steps-post")
    lines.append(_line(f"{prefix}Pareto front", front, metric, cost, "-", options))
    return lines


def _line(
    label: str,
    results: Sequence[PointResult],
    metric: str,
    cost: str,
    style: str,
    options: dict[str, Any],
) -> Line:
    x, y = ([r.value(name) for r in results] for name in (cost, metric))
    return Line(label, x, y, style, options)
