"""The comparison of formats as a table."""

from __future__ import annotations

from collections.abc import Sequence

from mmvitaccel.analysis.formats.compare import Row
from mmvitaccel.analysis.sweep.results import number

_MIB = 2**20


def table(rows: Sequence[Row], metric: str) -> str:
    """A row for each format, as Markdown."""
    lines = [
        f"| format | stands in for | {metric} | ms, p50 | ms, p99 | images/s | memory, MiB "
        "| on disk, MiB | error |",
        f"| --- | --- |{' ---: |' * 7}",
    ]
    for row in rows:
        own = row.to_json()
        memory = "" if row.memory is None else f"{row.memory / _MIB:.1f}"
        error = "" if row.error is None else f"{row.error:.1e}"
        lines.append(
            f"| {row.name} | {', '.join(row.replaces)} | {number(row.figures[metric]):.4g} "
            f"| {own['ms_p50']:.1f} | {own['ms_p99']:.1f} | {own['images_per_second']:.1f} "
            f"| {memory} | {row.size / _MIB:.2f} | {error} |"
        )
    return "\n".join(lines)
