"""Curves and sample frames as data URLs."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from PIL import Image, UnidentifiedImageError

_LONGEST_SIDE = 640


def curve(name: str, points: Sequence[tuple[float, float]]) -> str:
    """A figure over the steps, as a PNG."""
    finite = [(x, y) for x, y in points if math.isfinite(y)]
    return _drawn(lambda axes: axes.plot(*zip(*finite), "." if len(finite) == 1 else "-"), name)


def bars(values: Mapping[str, float], dense: Mapping[str, float], label: str) -> str:
    """A bar per name as a PNG, with a pale bar of the dense model behind it."""

    def draw(axes: Any) -> None:
        names = list(values)
        axes.barh(names, [dense.get(n, 0.0) for n in names], color="0.85", label="dense")
        axes.barh(names, list(values.values()), height=0.5, label="this run")
        axes.invert_yaxis()
        axes.tick_params(axis="y", labelsize="small")
        axes.set_xlabel(label)
        axes.legend(fontsize="small")

    return _drawn(draw, "", height=max(1.6, 0.22 * len(values) + 0.9))


def picture(path: Path) -> str | None:
    """A picture file as a reduced JPEG; None if it cannot be read."""
    try:
        with Image.open(path) as image:
            image = image.convert("RGB")
            image.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
            file = io.BytesIO()
            image.save(file, "JPEG", quality=85)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
        return None
    return _address("jpeg", file.getvalue())


def _drawn(draw: Callable[[Any], Any], title: str, height: float = 2.6) -> str:
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.0, height), layout="constrained")
    draw(axes)
    # Matplotlib reads $ as the start of a formula
    axes.set_title(title.replace("$", r"\$"), fontsize="medium")
    axes.grid(alpha=0.3)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=90)
    pyplot.close(figure)
    return _address("png", file.getvalue())


def _address(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
