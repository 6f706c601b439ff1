"""Tests one set of weights at many operating points; finished points are not repeated."""

from __future__ import annotations

import copy
import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn

from mmvitaccel.adapters.attach import link
from mmvitaccel.analysis.sweep.evaluate import evaluate, with_costs
from mmvitaccel.analysis.sweep.folder import SweepFolder
from mmvitaccel.analysis.sweep.operating_point import OperatingPoint
from mmvitaccel.analysis.sweep.results import PointResult
from mmvitaccel.errors import UserError, building
from mmvitaccel.fit.check import check_test
from mmvitaccel.models.weights.wrapped import USUAL, Choice
from mmvitaccel.runner.attached_hooks import attach_hooks
from mmvitaccel.runner.evaluation import deploy
from mmvitaccel.whole_files import sha256_of


class Sweep:
    """A config's weights at several operating points, in a folder.

    Args:
        cfg: Config of a detector, recognizer or classifier, without ToMe, Eventful and RLT.
        checkpoint: Its weights.
        folder: Folder for the results of this sweep.
        choice: Selects the weights in the checkpoint.
        skip_broken: Whether unreadable files are skipped and counted.
        folded: Whether BatchNorm is folded before each test.
        parts: Parts of a detector to make eventful; None for the transformer only.

    Raises:
        UserError: Config, checkpoint and data do not match, the config already has a method, or the
            folder has another sweep.
    """

    def __init__(
        self,
        cfg: Config,
        checkpoint: str,
        folder: SweepFolder,
        choice: Choice = USUAL,
        skip_broken: bool = False,
        folded: bool = False,
        parts: str | Sequence[str] | None = None,
    ) -> None:
        self.cfg, self.checkpoint, self.folder = with_costs(cfg), checkpoint, folder
        self.choice, self.skip_broken = choice, skip_broken
        # Without a seed, random tokens would differ in every run
        self.cfg.randomness = {"seed": 0, **(self.cfg.get("randomness") or {})}
        if folded:
            deploy(self.cfg)
        self.model = check_test(self.cfg, checkpoint, choice)
        _refuse_methods(cfg, self.model)
        self.settings: dict[str, Any] = dict(
            config=cfg.pretty_text,
            checkpoint=checkpoint if "://" in checkpoint else sha256_of(checkpoint),
            weights=[choice.entry, choice.prefix],
            skip_broken=skip_broken,
            deploy=folded,
            parts=parts,
        )

    def run(self, points: Sequence[OperatingPoint], console: Console) -> list[PointResult]:
        """Test all unfinished points.

        Args:
            points: Points; all are tried on the model before the first test.
            console: Shows the progress, and a line for each point.

        Returns:
            All results in the folder, including earlier points.

        Raises:
            UserError: The model does not support a point.
        """
        for point in points:
            _try(point, self.model)
        self.folder.claim(self.settings)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
            whole = progress.add_task("points", total=len(points))
            for point in points:
                result = self.folder.done(point)
                kept = result is not None
                if result is None:
                    result = self._measure(point, progress)
                    self.folder.keep(result)
                progress.console.print(f"{point.name}: {'kept' if kept else 'tested'}")
                progress.advance(whole)
        return self.folder.results()

    def _measure(self, point: OperatingPoint, progress: Progress) -> PointResult:
        task = progress.add_task(point.name, total=None)
        cfg, folder = point.apply(self.cfg), self.folder.test_dir(point)
        bar = [_Bar(progress, task)]
        try:
            # Tables printed by evaluators would disturb the progress bars
            with redirect_stdout(io.StringIO()):
                figures = evaluate(
                    cfg, self.checkpoint, folder, self.choice, self.skip_broken, True, bar
                )
        except UserError as error:
            raise UserError(f"{point.name}: {error}") from error
        finally:
            progress.remove_task(task)
        return PointResult(point, figures)


class _Bar(Hook):
    """Advances a progress bar with every batch of a test."""

    def __init__(self, progress: Progress, task: Any) -> None:
        self.progress, self.task = progress, task

    def before_test(self, runner: Runner) -> None:
        self.progress.update(self.task, total=len(runner.test_dataloader))

    def after_test_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        self.progress.advance(self.task)


def _refuse_methods(cfg: Config, model: nn.Module) -> None:
    """Refuse a config that already has a method."""
    on = [m for m in map(link, model.modules()) if m is not None and m.members]
    handles = attach_hooks(cfg, model)
    for handle in reversed(handles):
        handle.remove()
    if on or handles:
        what = f"{on[0].method} on its model" if on else "a method in its hooks"
        raise UserError(
            f"config {cfg.filename} already has {what}; give the dense config, because the sweep "
            f"attaches the methods."
        )


def _try(point: OperatingPoint, model: nn.Module) -> None:
    """Attach a point's method to a model and remove it again."""
    if point.hook is not None:
        with building(point.name):
            HOOKS.build(copy.deepcopy(dict(point.hook))).attach(model).remove()
