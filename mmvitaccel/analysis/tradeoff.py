"""Accuracy and multiply-adds of one trained detector under several methods and budgets.

Like Figure 7 of the paper (arXiv 2308.13494) for any dense config: the same weights are tested
dense and with each method at each k, as by ``tools/test.py``.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import get_rank

from mmvitaccel.analysis.sweep.evaluate import evaluate
from mmvitaccel.analysis.sweep.operating_point import DENSE, OperatingPoint, eventful_point
from mmvitaccel.analysis.sweep.plot import Line, Panel, save_panels
from mmvitaccel.datasets.synthetic import (
    ImageSetSettings,
    VideoSetSettings,
    make_image_set,
    make_video_set,
)
from mmvitaccel.errors import UserError, building
from mmvitaccel.models.weights.wrapped import USUAL, Choice
from mmvitaccel.runner.session import run
from mmvitaccel.runner.storage import last_checkpoint

#: Arguments of :func:`eventful_point` for each method. With ``all-parts-k``, the neck's gate passes
#: exactly k cells.
METHODS: dict[str, dict[str, Any]] = {
    "token-wise": dict(attention="tokenwise"),
    "exact": dict(attention="exact"),
    "all-parts": dict(attention="exact", parts="all"),
    "all-parts-k": dict(attention="exact", parts="all", each=("backbone", "neck")),
    "delta": dict(attention="delta"),
    "STGT": dict(attention="tokenwise", reference="last_frame"),
}
#: Figures of a test, and the evaluators that compute them.
FIGURES = {
    "vid/mAP50": "mmvitaccel.VIDMetric",
    "cost/backbone_gmacs": "mmvitaccel.MacsMetric",
    "cost/gmacs": "mmvitaccel.MacsMetric",
    "cost/backbone_ratio": "mmvitaccel.MacsMetric",
}
_MAP50, _SPEEDS = "vid/mAP50", ("slow", "medium", "fast")


@dataclass(frozen=True)
class Point:
    """One method at one budget.

    Attributes:
        method: ``dense`` or a key of :data:`METHODS`.
        k: Tokens that pass each gate; None for dense.
        map50: mAP50 in percent.
        map50_slow: The same for slow objects, if the config's VIDMetric has ``by_motion``.
        map50_medium: The same for medium objects.
        map50_fast: The same for fast objects.
        backbone_gmacs: Backbone, mean per frame in 1e9 multiply-adds.
        gmacs: The same for the whole model.
        backbone_ratio: Dense over mean, for the backbone.
    """

    method: str
    k: int | None
    map50: float
    backbone_gmacs: float
    gmacs: float
    backbone_ratio: float
    map50_slow: float | None = None
    map50_medium: float | None = None
    map50_fast: float | None = None


@building("generated")
def draw_generated(cfg: Config, report: Callable[..., None]) -> None:
    """Generate the data sets of a config, as specified by its ``generated``.

    Args:
        cfg: ``generated`` has settings for ``videos`` and ``images``, which are written to folders
            with these names below ``data_root``; existing sets are kept.
        report: Called after each step with its name, the number done and the total.

    Raises:
        UserError: The folder has other content.
    """
    kinds = {
        "videos": (VideoSetSettings, make_video_set),
        "images": (ImageSetSettings, make_image_set),
    }
    for kind, given in (cfg.get("generated") or {}).items():
        settings, make = kinds[kind]
        values = {key: tuple(v) if isinstance(v, list) else v for key, v in given.items()}
        try:
            make(Path(cfg.data_root) / kind, settings(**values), progress=report)
        except (OSError, ValueError) as error:
            raise UserError(f"generated.{kind}: {error}") from error


def train(cfg: Config, work_dir: Path, skip_broken: bool = False) -> Path:
    """Train a config, unless this is already done; an interrupted run is resumed.

    Args:
        cfg: A config with an epoch-based training loop.
        work_dir: Folder for logs and checkpoints.
        skip_broken: Whether files that cannot be read are passed over and counted.

    Returns:
        Path of the last checkpoint.
    """
    if not (cfg.get("train_cfg") or {}).get("max_epochs"):
        raise UserError(
            f"config {cfg.filename} has no train_cfg.max_epochs; give a config that trains by "
            "epochs."
        )
    with building("train_cfg"):
        last = work_dir / f"epoch_{cfg.train_cfg.max_epochs}.pth"
    if not last.is_file():
        cfg = copy.deepcopy(cfg)
        cfg.work_dir = str(work_dir)
        found = last_checkpoint(cfg.work_dir)
        if found:
            cfg.resume, cfg.load_from = True, found
        run(cfg, "train", skip_broken=skip_broken)
    return last


def measure(
    cfg: Config,
    checkpoint: str | Path,
    methods: Sequence[str],
    budgets: Sequence[int],
    work_dir: Path,
    report: Callable[[Point], None],
    choice: Choice = USUAL,
    skip_broken: bool = False,
) -> list[Point]:
    """Test the weights dense and with every method at every k.

    Args:
        cfg: Dense config, with ``mmvitaccel.VIDMetric`` and ``mmvitaccel.MacsMetric`` among its
            test evaluators.
        checkpoint: Its weights.
        methods: Keys of :data:`METHODS`.
        budgets: Values of k.
        work_dir: Gets a folder for each test.
        report: Called with each new point.
        choice: Selects the weights in the checkpoint.
        skip_broken: Whether files that cannot be read are passed over and counted.

    Returns:
        The points, dense first.

    Raises:
        UserError: A figure is missing because the config lacks the evaluator.
    """
    runs = [(DENSE, None, OperatingPoint(DENSE))]
    runs += [(m, k, eventful_point(k, **METHODS[m])) for m in methods for k in budgets]
    points = []
    for method, k, at in runs:
        name = method if k is None else f"{method}_k{k}"
        figures = evaluate(at.apply(cfg), checkpoint, work_dir / name, choice, skip_broken)
        absent = [figure for figure in FIGURES if figure not in figures]
        if absent:
            raise UserError(
                f"test_evaluator returned no {' and no '.join(absent)}; put "
                f"{' and '.join(dict.fromkeys(FIGURES[figure] for figure in absent))} into it."
            )
        points.append(
            Point(
                method=method,
                k=k,
                map50=figures[_MAP50],
                **_by_motion(figures),
                backbone_gmacs=figures["cost/backbone_gmacs"],
                gmacs=figures["cost/gmacs"],
                backbone_ratio=figures["cost/backbone_ratio"],
            )
        )
        report(points[-1])
    return points


def _by_motion(figures: dict[str, Any]) -> dict[str, float | None]:
    """mAP50 by speed; None if it was not measured or no object has this speed."""
    found = {f"map50_{speed}": figures.get(f"{_MAP50}_{speed}") for speed in _SPEEDS}
    return {n: None if value is None or math.isnan(value) else value for n, value in found.items()}


def table(points: Sequence[Point]) -> str:
    """The points as Markdown; mAP50 by motion where it was measured."""
    lines = [
        "| method | k | mAP50 | slow | medium | fast | backbone, G multiply-adds | whole model "
        "| backbone, dense / mean |",
        "| --- " * 9 + "|",
    ]
    for point in points:
        k = "-" if point.k is None else point.k
        speeds = (point.map50_slow, point.map50_medium, point.map50_fast)
        scores = ["-" if score is None else f"{score:.2f}" for score in (point.map50, *speeds)]
        costs = [f"{point.backbone_gmacs:.4f}", f"{point.gmacs:.4f}"]
        cells = [point.method, str(k), *scores, *costs, f"{point.backbone_ratio:.2f}x"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def save(points: Sequence[Point], folder: Path) -> list[Path]:
    """Write ``tradeoff.json``, ``tradeoff.md`` and the plot ``tradeoff.png``.

    Args:
        points: The measured points.
        folder: Created if it does not exist.

    Returns:
        The files.
    """
    return save_tradeoff(
        folder, [asdict(point) for point in points], table(points), _panels(points)
    )


def save_tradeoff(
    folder: Path, points: Sequence[dict[str, Any]], text: str, panels: Sequence[Panel]
) -> list[Path]:
    """Write ``tradeoff.json``, ``tradeoff.md`` and ``tradeoff.png``; returns the files."""
    if get_rank():
        return []
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"tradeoff.{suffix}" for suffix in ("json", "md", "png")]
    files[0].write_text(json.dumps(points, indent=2) + "\n")
    files[1].write_text(text + "\n")
    save_panels(panels, files[2])
    return files


def _panels(points: Sequence[Point]) -> list[Panel]:
    """mAP50 over multiply-adds and over k, one line per method."""
    by_cost, by_k, level = [], [], None
    for method in dict.fromkeys(point.method for point in points):
        mine = [point for point in points if point.method == method]
        x, scores = [point.backbone_gmacs for point in mine], [point.map50 for point in mine]
        if method == DENSE:
            by_cost.append(Line(method, x, scores, "k*", dict(markersize=12)))
            level = (method, scores[0])
            continue
        # These overlap with token-wise; dashed and dotted lines keep all visible
        style = {"exact": "s--", "all-parts": "^:", "all-parts-k": "v:"}.get(method, "o-")
        by_cost.append(Line(method, x, scores, style))
        by_k.append(Line(method, [point.k for point in mine], scores, style))
    return [
        Panel("backbone, G multiply-adds per frame", "mAP50 (%)", by_cost),
        Panel("k, tokens let through", "mAP50 (%)", by_k, level),
    ]
