"""Accuracy and multiply-adds of one small ViViT under several methods, on generated clips.

The same weights are tested dense, eventful at several k before and after temporal fine-tuning, and
with merged tokens, like Figure 8 of the paper (arXiv 2308.13494), in minutes on a CPU.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS

from mmvitaccel.analysis.sweep.evaluate import evaluate
from mmvitaccel.analysis.sweep.operating_point import DENSE
from mmvitaccel.analysis.sweep.plot import Line, Panel
from mmvitaccel.analysis.tradeoff import save_tradeoff, train
from mmvitaccel.core.macs.counter import count_macs
from mmvitaccel.errors import UserError, building
from mmvitaccel.runner.checkpoint import check_checkpoint
from mmvitaccel.runner.session import build_model
from mmvitaccel.video.spatial_cache import cache_spatial

TOME, RLT = "ToMe", "RLT"
TUNED = ", tuned"
# In exact mode the count depends slightly on the clip; one clip per motion is enough
COUNTED_CLIPS = 7


@dataclass(frozen=True)
class MotionPoint:
    """One method at one budget.

    Attributes:
        method: ``dense``, an attention mode of Eventful, the same followed by ``, tuned`` after
            temporal fine-tuning, ``ToMe`` or ``RLT``.
        budget: k of Eventful, r of ToMe, threshold of RLT; None for dense.
        top1: In percent.
        gmacs: Mean per clip, in 1e9 multiply-adds, without the tubelet embedding.
        embedding_gmacs: The same for the tubelet embedding.
    """

    method: str
    budget: float | None
    top1: float
    gmacs: float
    embedding_gmacs: float


class MotionStudy:
    """Trains and measures the models, and reuses results that exist.

    Args:
        dense: Config of the dense model, for training and testing.
        temporal: Config that trains its temporal encoder on spatial features.
        work_dir: For checkpoints, features and results.
        report: Called with each new point.
    """

    def __init__(
        self,
        dense: Config,
        temporal: Config,
        work_dir: Path,
        report: Callable[[MotionPoint], None] = lambda point: None,
    ) -> None:
        self.dense = dense
        self.temporal = temporal
        self.work_dir = work_dir
        self.report = report

    def run(
        self,
        modes: Sequence[str],
        budgets: Sequence[int],
        merged: Sequence[int],
        repeated: Sequence[float],
    ) -> list[MotionPoint]:
        """Measure all.

        Args:
            modes: Attention modes of Eventful.
            budgets: Values of k.
            merged: Values of r of ToMe.
            repeated: Thresholds of run-length tokenization.

        Returns:
            The points, dense first.

        Raises:
            UserError: ``work_dir`` has results of other configs, the model has no ViViT, or its
                accuracy is not measured.
        """
        backbone = getattr(build_model(self.dense), "backbone", None)
        if not hasattr(backbone, "forward_spatial"):
            raise UserError(
                f"the dense config {self.dense.filename} has the backbone "
                f"{type(backbone).__name__}, which has no spatial encoder; give a config with "
                "backbone=dict(type='mmvitaccel.ViViT')."
            )
        self._check_folder()
        checkpoint = train(self.dense, self.work_dir / "train")
        points = [self._point(DENSE, None, self.dense, checkpoint)]
        for mode in modes:
            for k in budgets:
                cfg = _wrapped(
                    self.dense, "Eventful", policy=dict(type="TopK", k=k), attention=mode
                )
                points.append(self._point(mode, k, cfg, checkpoint))
                tuned = self._tune(cfg, checkpoint, f"{mode}_k{k}")
                points.append(self._point(mode + TUNED, k, cfg, tuned))
        for r in merged:
            points.append(self._point(TOME, r, _wrapped(self.dense, TOME, r=r), checkpoint))
        for threshold in repeated:
            cfg = _wrapped(self.dense, RLT, threshold=threshold)
            points.append(self._point(RLT, threshold, cfg, checkpoint))
        return points

    def _check_folder(self) -> None:
        """Refuse a folder with results of other configs."""
        path = self.work_dir / "configs.txt"
        content = f"{self.dense.pretty_text}\n{self.temporal.pretty_text}"
        if path.is_file() and path.read_text() != content:
            raise UserError(
                f"'{self.work_dir}' has results of other configs (see its {path.name}); name "
                "another folder or delete it."
            )
        self.work_dir.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    def _tune(self, cfg: Config, checkpoint: Path, name: str) -> Path:
        """The two steps of temporal fine-tuning; returns the last checkpoint."""
        features = self.work_dir / "features" / name
        batch_size = cfg.test_dataloader.batch_size
        cache_spatial(cfg, str(checkpoint), features, batch_size=batch_size, num_workers=1)
        tuning = copy.deepcopy(self.temporal)
        for split in ("train", "val", "test"):
            tuning[f"{split}_dataloader"].dataset.data_root = str(features)
        tuning.load_from = str(features / "weights.pth")
        return train(tuning, self.work_dir / "tune" / name)

    def _point(self, method: str, budget: float | None, cfg: Config, weights: Path) -> MotionPoint:
        name = method.replace(", ", "_") + ("" if budget is None else f"_{budget}")
        path = self.work_dir / "points" / f"{name}.json"
        if path.is_file():
            point = MotionPoint(**json.loads(path.read_text()))
        else:
            figures = evaluate(cfg, weights, self.work_dir / "tests" / name)
            if "acc/top1" not in figures:
                raise UserError(
                    f"test_evaluator returned {', '.join(figures) or 'nothing'}, but not "
                    f"acc/top1; add mmaction2's AccMetric."
                )
            accuracy = figures["acc/top1"]
            gmacs, embedding = _count(cfg, weights)
            point = MotionPoint(method, budget, 100 * float(accuracy), gmacs, embedding)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(asdict(point)))
        self.report(point)
        return point


def _wrapped(cfg: Config, method: str, **options: Any) -> Config:
    """The config with a method around its backbone."""
    cfg = copy.deepcopy(cfg)
    inner = cfg.model.backbone
    cfg.model.backbone = ConfigDict(type=f"mmvitaccel.{method}", backbone=inner, **options)
    return cfg


def _count(cfg: Config, weights: Path) -> tuple[float, float]:
    """1e9 multiply-adds per clip on real clips: without the tubelet embedding, and of it."""
    model = build_model(cfg)
    check_checkpoint(model, str(weights))
    with building("the test data"):
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
    totals, embeddings = [], []
    for index in range(min(COUNTED_CLIPS, len(dataset))):
        batch = model.data_preprocessor(pseudo_collate([dataset[index]]), False)
        report = count_macs(model, batch["inputs"], mode="tensor", stage="head")
        embedding = report.by_module["backbone.patch_embed"]
        totals.append(report.total - embedding)
        embeddings.append(embedding)
    return sum(totals) / len(totals) / 1e9, sum(embeddings) / len(embeddings) / 1e9


def table(points: Sequence[MotionPoint]) -> str:
    """The points as Markdown, with a separate line for the tubelet embedding."""
    dense = points[0].gmacs
    lines = [
        "| method | k, r or threshold | top-1 (%) | G multiply-adds a clip | dense / this |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for point in points:
        budget = "" if point.budget is None else point.budget
        lines.append(
            f"| {point.method} | {budget} | {point.top1:.2f} | {point.gmacs:.4f} "
            f"| {dense / point.gmacs:.2f}x |"
        )
    embedding = points[0].embedding_gmacs
    lines.append(f"| tubelet embedding, in all of them besides | | | {embedding:.4f} | |")
    return "\n".join(lines)


def save(points: Sequence[MotionPoint], folder: Path) -> list[Path]:
    """Write ``tradeoff.json``, ``tradeoff.md`` and the plot ``tradeoff.png``; returns the files."""
    return save_tradeoff(
        folder, [asdict(point) for point in points], table(points), [_panel(points)]
    )


def _panel(points: Sequence[MotionPoint]) -> Panel:
    """Accuracy over multiply-adds, one line per method; tuned ones dashed with squares."""
    colours: dict[str, str] = {}
    lines = []
    for method in dict.fromkeys(point.method for point in points):
        mine = [point for point in points if point.method == method]
        x, y = [point.gmacs for point in mine], [point.top1 for point in mine]
        if method == DENSE:
            lines.append(Line(method, x, y, "k*", dict(markersize=14)))
            continue
        colour = colours.setdefault(method.removesuffix(TUNED), f"C{len(colours)}")
        style = "s--" if method.endswith(TUNED) else "o-"
        lines.append(Line(method, x, y, style, dict(color=colour)))
    return Panel("G multiply-adds a clip, without tubelet embedding", "top-1 (%)", lines)
