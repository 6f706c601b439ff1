"""Accuracy and multiply-adds of one trained detector under several methods and budgets.

This is the paper's Figure 7 (arXiv 2308.13494) for any config with an eventful sibling: the same
weights are tested dense and with each method at each k, as ``tools/test.py`` would.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib
from mmengine.config import Config, ConfigDict
from mmengine.dist import get_rank
from mmengine.hooks import Hook

from mmvitaccel.datasets.synthetic import (
    ImageSetSettings,
    VideoSetSettings,
    make_image_set,
    make_video_set,
)
from mmvitaccel.errors import UserError, building
from mmvitaccel.models.weights.wrapped import USUAL, Choice
from mmvitaccel.registry import type_name
from mmvitaccel.runner.session import run
from mmvitaccel.runner.storage import last_checkpoint

#: What the Eventful wrapper is given for each method.
METHODS: dict[str, dict[str, Any]] = {
    "token-wise": dict(attention="tokenwise"),
    "exact": dict(attention="exact"),
    "delta": dict(attention="delta"),
    "STGT": dict(attention="tokenwise", reference="last_frame"),
}
DENSE = "dense"
#: What is read of a test, and the evaluator that gives it.
FIGURES = {
    "vid/mAP50": "mmvitaccel.VIDMetric",
    "cost/backbone_gmacs": "mmvitaccel.MacsMetric",
    "cost/gmacs": "mmvitaccel.MacsMetric",
    "cost/backbone_ratio": "mmvitaccel.MacsMetric",
}


@dataclass(frozen=True)
class Point:
    """One method at one budget.

    Attributes:
        method: ``dense`` or a key of :data:`METHODS`.
        k: Tokens let through; None for dense.
        map50: In percent.
        backbone_gmacs: Mean per frame, in 1e9 multiply-adds.
        gmacs: The same of the whole model.
        backbone_ratio: Dense over mean.
    """

    method: str
    k: int | None
    map50: float
    backbone_gmacs: float
    gmacs: float
    backbone_ratio: float


@building("generated")
def draw_generated(cfg: Config, report: Callable[..., None]) -> None:
    """Draw the sets that a config is to be tried on, as its ``generated`` says.

    Args:
        cfg: ``generated`` has settings for ``videos`` and ``images``, drawn into folders of these
            names below ``data_root``; a set that is there is left alone.
        report: Told of each step: what, how many are done, of how many.

    Raises:
        UserError: The folder holds something else.
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
    """Train a config, unless it was trained there already; an interrupted run is resumed.

    Args:
        cfg: A config with an epoch-based training loop.
        work_dir: For logs and checkpoints.
        skip_broken: Whether files that cannot be read are passed over and counted.

    Returns:
        The last checkpoint.
    """
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


def eventful(cfg: Config, method: str, k: int) -> Config:
    """The config with its backbone made eventful.

    Args:
        cfg: Dense.
        method: A key of :data:`METHODS`.
        k: Tokens let through.
    """
    cfg = copy.deepcopy(cfg)
    cfg.model.backbone = ConfigDict(
        type="mmvitaccel.Eventful",
        policy=dict(type="TopK", k=k),
        backbone=cfg.model.backbone,
        **METHODS[method],
    )
    return cfg


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
        cfg: Dense, with ``mmvitaccel.VIDMetric`` and ``mmvitaccel.MacsMetric`` among its test
            evaluators.
        checkpoint: Its weights.
        methods: Keys of :data:`METHODS`.
        budgets: Values of k.
        work_dir: A folder for each test is made in it.
        report: Told each point as it is there.
        choice: Which weights in the checkpoint.
        skip_broken: Whether files that cannot be read are passed over and counted.

    Returns:
        The points, dense first.

    Raises:
        UserError: A figure is missing, since the config lacks the evaluator.
    """
    runs = [(DENSE, None, cfg)]
    runs += [(method, k, eventful(cfg, method, k)) for method in methods for k in budgets]
    points = []
    for method, k, variant in runs:
        name = method if k is None else f"{method}_k{k}"
        figures = test(variant, checkpoint, work_dir / name, choice, skip_broken)
        absent = [figure for figure in FIGURES if figure not in figures]
        if absent:
            raise UserError(
                f"test_evaluator gives no {' and no '.join(absent)}; put "
                f"{' and '.join(dict.fromkeys(FIGURES[figure] for figure in absent))} into it."
            )
        points.append(
            Point(
                method=method,
                k=k,
                map50=figures["vid/mAP50"],
                backbone_gmacs=figures["cost/backbone_gmacs"],
                gmacs=figures["cost/gmacs"],
                backbone_ratio=figures["cost/backbone_ratio"],
            )
        )
        report(points[-1])
    return points


def test(
    cfg: Config,
    checkpoint: str | Path,
    work_dir: Path,
    choice: Choice = USUAL,
    skip_broken: bool = False,
    hooks: Sequence[Hook] = (),
) -> dict[str, Any]:
    """What the config's evaluators say of a checkpoint.

    Args:
        cfg: The config.
        checkpoint: Its weights.
        work_dir: For the log.
        choice: Which weights in the checkpoint.
        skip_broken: Whether files that cannot be read are passed over and counted.
        hooks: Beside the config's own.
    """
    cfg = copy.deepcopy(cfg)
    cfg.work_dir, cfg.load_from, cfg.resume = str(work_dir), str(checkpoint), False
    cfg.log_level = "WARNING"
    for hook in cfg.get("custom_hooks") or []:
        if type_name(hook) == "CostHook":
            hook["timed"] = False
    return run(cfg, "test", choice, skip_broken, hooks)


def table(points: Sequence[Point]) -> str:
    """The points as Markdown."""
    lines = [
        "| method | k | mAP50 | backbone, G multiply-adds | whole model | backbone, dense / mean |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for point in points:
        k = "-" if point.k is None else point.k
        lines.append(
            f"| {point.method} | {k} | {point.map50:.2f} | {point.backbone_gmacs:.4f} "
            f"| {point.gmacs:.4f} | {point.backbone_ratio:.2f}x |"
        )
    return "\n".join(lines)


def save(points: Sequence[Point], folder: Path) -> list[Path]:
    """Write ``tradeoff.json``, ``tradeoff.md`` and the plot ``tradeoff.png``.

    Args:
        points: What was measured.
        folder: Made if it is not there.

    Returns:
        The files.
    """
    if get_rank():
        return []
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"tradeoff.{suffix}" for suffix in ("json", "md", "png")]
    files[0].write_text(json.dumps([asdict(point) for point in points], indent=2) + "\n")
    files[1].write_text(table(points) + "\n")
    _plot(points, files[2])
    return files


def _plot(points: Sequence[Point], path: Path) -> None:
    """mAP50 over multiply-adds and over k, a line for each method."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    for method in dict.fromkeys(point.method for point in points):
        mine = [point for point in points if point.method == method]
        scores = [point.map50 for point in mine]
        if method == DENSE:
            axes[0].plot(mine[0].backbone_gmacs, scores[0], "k*", markersize=12, label=method)
            axes[1].axhline(scores[0], color="k", linestyle=":", label=method)
        else:
            # reason: exact scores as token-wise does; dashed, both lines are seen
            style = "s--" if method == "exact" else "o-"
            axes[0].plot([point.backbone_gmacs for point in mine], scores, style, label=method)
            axes[1].plot([point.k for point in mine], scores, style, label=method)
    axes[0].set(xlabel="backbone, G multiply-adds per frame", ylabel="mAP50 (%)")
    axes[1].set(xlabel="k, tokens let through")
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
