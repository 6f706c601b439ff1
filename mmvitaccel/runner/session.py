"""Builds a Runner from a config and trains or tests; cleans up after a mistake."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import MODELS, RUNNERS, init_default_scope
from mmengine.runner import Runner
from mmengine.utils import ManagerMixin
from torch import nn

from mmvitaccel.errors import UserError, building, running
from mmvitaccel.loaders.checked import CheckedLoading
from mmvitaccel.models.weights.wrapped import USUAL, Choice
from mmvitaccel.runner.checkpoint import ChosenWeights
from mmvitaccel.runner.distributed import leave_processes
from mmvitaccel.runner.storage import whole_checkpoints


@building("config")
def set_work_dir(cfg: Config, work_dir: str | None) -> None:
    """Set the work directory: the given one, the config's, or ``work_dirs/<config's name>``.

    Raises:
        UserError: The folder cannot be created or written.
    """
    default = os.path.join("work_dirs", Path(cfg.filename).stem)
    cfg.work_dir = work_dir or cfg.get("work_dir") or default
    _check_writable(cfg.work_dir)


def _check_writable(folder: str) -> None:
    """Refuse a work directory that cannot be created or written."""
    path = Path(folder).absolute()
    there = next(p for p in (path, *path.parents) if p.exists())
    if not there.is_dir():
        what = f"{there} is a file"
    elif not os.access(there, os.W_OK | os.X_OK):
        what = f"{there} may not be written"
    else:
        return
    raise UserError(f"the work directory {folder} cannot be made: {what}; give another --work-dir.")


def build_model(cfg: Config) -> nn.Module:
    """Build the config's model with initial weights, as the Runner does.

    Raises:
        UserError: The model cannot be built.
    """
    init_default_scope(cfg.get("default_scope") or "mmengine")
    model = copy.deepcopy(cfg.model)
    if cfg.get("data_preprocessor") is not None:
        model.setdefault("data_preprocessor", copy.deepcopy(cfg.data_preprocessor))
    with building("model"):
        return MODELS.build(model)


def run(
    cfg: Config,
    job: str,
    choice: Choice = USUAL,
    skip_broken: bool = False,
    hooks: Sequence[Hook] = (),
) -> dict[str, float]:
    """Train or test.

    Args:
        cfg: A checked config with ``work_dir`` set.
        job: ``train`` or ``test``.
        choice: Selects the weights of the initial checkpoint.
        skip_broken: Whether unreadable files are skipped and counted.
        hooks: Additional hooks, which are not part of the saved config.

    Returns:
        The evaluators' metrics of a test; nothing for a training.

    Raises:
        UserError: A part of the config cannot be built, or shapes do not match when the model runs.
            A new work directory is removed if the error occurs before the end of the first
            iteration.
    """
    progress = _Progress()
    with own_state(), _removed_on_mistake(cfg.work_dir, progress):
        # A separate frame, so that no reference to the runner remains
        return _build_and_run(cfg, job, [progress, ChosenWeights(choice), *hooks], skip_broken)


def _build_and_run(
    cfg: Config, job: str, hooks: Sequence[Hook], skip_broken: bool
) -> dict[str, float]:
    progress = next(hook for hook in hooks if isinstance(hook, _Progress))
    with building("config"):
        runner = _build_runner(cfg)
        for hook in hooks:
            runner.register_hook(hook)
        loading = CheckedLoading(runner, skip_broken)
    with _sorted_errors(runner, progress), whole_checkpoints(runner):
        if job == "test":
            figures = runner.test()
        else:
            runner.train()
            figures = {}
    loading.report()
    return figures


@contextmanager
def own_state() -> Iterator[None]:
    """Restore global state of a run: loggers, scopes, visualizers, processes.

    mmengine stores them by name, so another run in this process would write to the files of the
    first.
    """
    try:
        yield
    finally:
        leave_processes()
        _forget(ManagerMixin)


def _forget(kind: type[ManagerMixin]) -> None:
    for child in kind.__subclasses__():
        child._instance_dict.clear()
        _forget(child)


class _Progress(Hook):
    """Progress of a run; errors before ``before_train`` or ``before_test`` are the config's."""

    priority = "LOWEST"

    def __init__(self) -> None:
        self.started = False
        self.iterated = False

    def before_train(self, runner: Runner) -> None:
        _refuse_nothing(runner.train_dataloader, "train_dataloader")
        self.started = True

    def before_test(self, runner: Runner) -> None:
        _refuse_nothing(runner.test_dataloader, "test_dataloader")
        self.started = True

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        self.iterated = True

    def after_test_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        self.iterated = True


def _refuse_nothing(loader: Any, where: str) -> None:
    """Refuse a loader without batches, with which a run would have no step.

    Raises:
        UserError: The loader has no batch.
    """
    if len(loader) == 0:
        samples, size = len(loader.dataset), loader.batch_size
        cause = f", and drop_last leaves out what fills no batch of {size}" if samples else ""
        raise UserError(
            f"{where} gives no batch: its data set has {samples} samples{cause}; correct the data "
            "set, the batch size or drop_last."
        )


def _build_runner(cfg: Config) -> Runner:
    return RUNNERS.build(cfg) if "runner_type" in cfg else Runner.from_cfg(cfg)


@contextmanager
def _sorted_errors(runner: Runner, progress: _Progress) -> Iterator[None]:
    """Treat errors before the loop starts as mistakes in the config, and most later ones not."""
    try:
        yield
    except Exception:
        with running(runner.model, "model") if progress.started else building("config"):
            raise


@contextmanager
def _removed_on_mistake(work_dir: str, progress: _Progress) -> Iterator[None]:
    """Remove a run's new directories if it ends with a mistake before the first iteration."""
    path = Path(work_dir).absolute()
    made = next((p for p in [*reversed(path.parents), path] if not p.exists()), None)
    try:
        yield
    except UserError:
        if made is not None and not progress.iterated and os.environ.get("RANK", "0") == "0":
            shutil.rmtree(made, ignore_errors=True)
        raise
