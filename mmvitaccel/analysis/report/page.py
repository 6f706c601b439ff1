"""Self-contained HTML page of a run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from mmvitaccel.analysis.report.pictures import bars, curve, picture
from mmvitaccel.analysis.report.work_dir import Run

_PARTS = ("backbone", "neck", "rpn_head", "bbox_head", "roi_head", "")
_COSTS = {
    "dense_gmacs": "dense, G multiply-adds",
    "first_gmacs": "first frames, G",
    "later_gmacs": "later frames, G",
    "gmacs": "mean, G",
    "ratio": "dense / mean",
    "first_ms": "first frames, ms",
    "later_ms": "later frames, ms",
    "ms": "median, ms",
}
_MOST_PICTURES = 8
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:.5rem 0}td,th{padding:.15rem .6rem;border:1px solid #ccc}
td+td,th+th{text-align:right}img{max-width:100%}pre{background:#f5f5f5;padding:1rem;overflow:auto}
.row{display:flex;flex-wrap:wrap;gap:.5rem}.row img{max-width:31rem}summary{cursor:pointer}
"""
_TOP = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
"""


def page(run: Run) -> str:
    """Render the HTML page.

    Args:
        run: The run. Names, figures and the config are escaped.
    """
    parts = [_TOP.format(title=escape(run.path.resolve().name), style=_STYLE)]
    for heading, section in (
        ("Accuracy", _accuracy(run)),
        ("Cost", _cost(run)),
        ("Curves", _curves(run)),
        ("Sample frames", _samples(run)),
        ("Checkpoints", _checkpoints(run)),
        ("Config", _config(run)),
        ("Not read", [_list(run.unread)] if run.unread else []),
    ):
        content = "\n".join(section)
        if content:
            parts.append(f"<h2>{heading}</h2>\n{content}")
    return "\n".join([*parts, "</body>\n</html>\n"])


def _accuracy(run: Run) -> Iterator[str]:
    """Metrics of each test, or those of the last validation."""
    tests = {
        name: {key: value for key, value in figures.items() if not key.startswith("cost/")}
        for name, figures in run.tests.items()
    }
    if not tests:
        last = {n: points[-1][1] for n, points in run.curves.items() if "/" in n}
        tests = {"last validation": last} if last else {}
    for name, figures in tests.items():
        rows = [(key, _number(v)) for key, v in figures.items() if _is_number(v)]
        if rows:
            yield _table(["figure", name], rows)


def _cost(run: Run) -> Iterator[str]:
    """Cost of a frame in the last test, by part, layer and gate."""
    figures = next(
        (f for f in reversed(run.tests.values()) if any(n.startswith("cost/") for n in f)), None
    )
    if figures is None:
        return
    cost = {n.removeprefix("cost/"): v for n, v in figures.items() if n.startswith("cost/")}
    rows = []
    for part in _PARTS:
        own = [cost.get(f"{part}_{key}" if part else key) for key in _COSTS]
        if any(value is not None for value in own):
            rows.append((part or "whole model", *map(_number, own)))
    yield _table(["cost of a frame", *_COSTS.values()], rows)
    layers = _numbers(cost.get("layers"))
    if layers:
        label = "G multiply-adds of later frames, by layer"
        yield _image(bars(layers, _numbers(cost.get("dense_layers")), label), "Cost by layer")
    tokens = _numbers(cost.get("tokens"))
    if tokens:
        yield _table(["gate", "tokens let through"], [(n, _number(v)) for n, v in tokens.items()])
    shares = _numbers(cost.get("computed"))
    if shares:
        yield _table(["part", "computed"], [(n, f"{v:.1%}") for n, v in shares.items()])


def _curves(run: Run) -> Iterator[str]:
    drawn = [
        _image(curve(name, points), name)
        for name, points in run.curves.items()
        if any(math.isfinite(value) for _, value in points)
    ]
    if drawn:
        yield f'<div class="row">{"".join(drawn)}</div>'


def _samples(run: Run) -> Iterator[str]:
    step = max(len(run.pictures) / _MOST_PICTURES, 1)
    chosen = [run.pictures[int(i * step)] for i in range(min(_MOST_PICTURES, len(run.pictures)))]
    shown = [(path, picture(path)) for path in chosen]
    names = [str(path.relative_to(run.path)) for path, address in shown if address is None]
    images = [_image(a, str(p.relative_to(run.path))) for p, a in shown if a is not None]
    if images:
        yield f'<div class="row">{"".join(images)}</div>'
        yield f"<p>{len(images)} of {len(run.pictures)} pictures.</p>"
    if names:
        yield f"<p>No pictures: {escape(', '.join(names))}.</p>"


def _checkpoints(run: Run) -> Iterator[str]:
    rows = [(p.name, f"{p.stat().st_size / 2**20:.1f}") for p in run.checkpoints]
    if rows:
        yield _table(["file", "MiB"], rows)


def _config(run: Run) -> Iterator[str]:
    if run.config:
        yield f"<details><summary>All of it</summary><pre>{escape(run.config)}</pre></details>"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"<tr>{''.join(f'<th>{escape(head)}</th>' for head in heads)}</tr>"]
    lines += [f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows]
    return f"<table>\n{chr(10).join(lines)}\n</table>"


def _image(address: str, text: str) -> str:
    return f'<img alt="{escape(text)}" title="{escape(text)}" src="{address}">'


def _list(texts: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in texts)}</ul>"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _number(value: Any) -> str:
    return f"{value:.4g}" if _is_number(value) else ""


def _numbers(value: Any) -> dict[str, float]:
    """Figures by name; empty if the value is not a dict."""
    found = value if isinstance(value, Mapping) else {}
    return {str(n): float(v) for n, v in found.items() if _is_number(v) and math.isfinite(v)}
