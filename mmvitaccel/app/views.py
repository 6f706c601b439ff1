"""HTML of the page: the picture of a frame, its costs, and curves over the video."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from mmvitaccel.video_demo import DemoFrame

_MOST_WIDTH = 1280
_QUALITY = 82
_SHOWN = 200  # most frames of a curve
DENSE, EVENTFUL = "dense", "eventful"
COLOURS = {DENSE: "#6e6e6e", EVENTFUL: "#c83c3c"}
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 480, 200, 44, 22, 178  # geometry of a plot


def picture(image: np.ndarray) -> str:
    """A picture (H, W, 3) uint8 RGB as HTML with the data inline, so that it has no URL."""
    if image.shape[1] > _MOST_WIDTH:
        height = round(image.shape[0] * _MOST_WIDTH / image.shape[1])
        image = cv2.resize(image, (_MOST_WIDTH, height), interpolation=cv2.INTER_AREA)
    quality = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    data = cv2.imencode(".jpg", image[..., ::-1], quality)[1].tobytes()
    source = f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
    return f'<img id="frame" alt="the clip, drawn" style="width:100%" src="{source}">'


def costs(frame: DemoFrame) -> str:
    """A frame's costs as an HTML table."""
    share = "" if frame.macs is None else f"{frame.macs / frame.dense_macs:.0%}"
    rows = [
        ("", "ms", "G multiply-adds", "of dense"),
        (DENSE, f"{frame.dense_milliseconds:.1f}", f"{frame.dense_macs / 1e9:.2f}", ""),
        (EVENTFUL, _number(frame.milliseconds, ".1f"), _number(frame.macs, ".2f", 1e9), share),
    ]
    cells = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    said = [f"frame {frame.number}", f"k {frame.k}"]
    said += [] if frame.target is None else [f"budget {frame.target.short}"]
    said += ["computed whole"] if frame.whole else []
    said += ["the budget cannot be held"] if frame.missed else []
    line = html.escape(", ".join(said))
    return f'<div id="costs"><table>{cells}</table><p>{line}</p></div>'


def curves(rows: Sequence[dict[str, Any]], figure: str, title: str, scale: float = 1.0) -> str:
    """Plot ``figure`` of the last frames, dense and eventful, as SVG.

    Args:
        rows: Rows of the table.
        figure: ``'milliseconds'`` or ``'macs'``.
        title: Title of the plot.
        scale: Divisor of the values.
    """
    last = list(rows)[-_SHOWN:]
    lines = {
        name: [(row["frame"], row[column] / scale) for row in last if row[column] is not None]
        for name, column in ((DENSE, f"dense_{figure}"), (EVENTFUL, figure))
    }
    first, final = (last[0]["frame"], last[-1]["frame"]) if last else (0, 1)
    most = max((value for line in lines.values() for _, value in line), default=1.0)
    drawn = [_text(_LEFT, 12, title), _text(_LEFT, _HEIGHT - 4, f"frame {first}")]
    drawn.append(_text(_WIDTH, _HEIGHT - 4, str(final), anchor="end"))
    for value in (0.0, most / 2, most):
        y = _BOTTOM - (_BOTTOM - _TOP) * value / most
        drawn.append(f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        drawn.append(_text(_LEFT - 4, y + 4, f"{value:.3g}", anchor="end"))
    for number, (name, line) in enumerate(lines.items()):
        places = " ".join(
            f"{_LEFT + (_WIDTH - _LEFT) * (frame - first) / max(final - first, 1):.1f},"
            f"{_BOTTOM - (_BOTTOM - _TOP) * value / most:.1f}"
            for frame, value in line
        )
        colour = COLOURS[name]
        drawn.append(
            f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
        drawn.append(_text(_WIDTH - 70 * number, 12, name, anchor="end", colour=colour))
    return (
        f'<svg id="{figure}" role="img" viewBox="0 0 {_WIDTH} {_HEIGHT}" style="width:100%">'
        f"{''.join(drawn)}</svg>"
    )


def _text(x: float, y: float, text: str, anchor: str = "start", colour: str = "#888") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} fill="{colour}" font-size="12">{html.escape(text)}</text>'


def notice(sentence: str, wrong: bool = False) -> str:
    """A message as HTML."""
    kind = "mistake" if wrong else "notice"
    return f'<p id="notice" class="{kind}">{html.escape(sentence)}</p>'


def table_link(token: str) -> str:
    """A link to a session's table, which is served to the session's browser only."""
    return f'<a id="table" href="./table/{token}" download>Download the table (csv)</a>'


def _number(value: float | None, form: str, scale: float = 1.0) -> str:
    return "-" if value is None else format(value / scale, form)
