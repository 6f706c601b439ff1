"""Build a Runner from a config and let it train or test, leaving nothing behind on a mistake."""

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
    """The command line's, else the config's, else ``work_dirs/<config's name>``.

    Raises:
        UserError: It cannot be made or written.
    """
    default = os.path.join("work_dirs", Path(cfg.filename).stem)
    cfg.work_dir = work_dir or cfg.get("work_dir") or default
    _check_writable(cfg.work_dir)


def _check_writable(folder: str) -> None:
    """Refuse a work directory that cannot be made or written."""
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
    """The config's model with fresh weights, as the Runner would build it.

    Raises:
        UserError: It cannot be built.
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
        choice: Which weights of the checkpoint that it starts from.
        skip_broken: Whether files that cannot be read are passed over and counted.
        hooks: Beside the config's own; they are not part of what is saved.

    Returns:
        Of a test, the evaluators' figures; of a training nothing.

    Raises:
        UserError: Something in the config cannot be built, or does not fit together when the
            model runs. Before the first iteration is done a work directory that was not there
            is removed again.
    """
    progress = _Progress()
    with own_state(), _removed_on_mistake(cfg.work_dir, progress):
        # reason: in a frame of its own, so that nothing of the runner is left when the state goes
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
    """Leave what a run registered for its process: loggers, scopes, visualizers, processes.

    mmengine keeps them by name, so that another run in this process would write into the files of
    the first.
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
    """How far a run has come; what is built up to ``before_train`` or ``before_test`` is config."""

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
    """Refuse a loader without a batch, which would be a run without a step.

    Raises:
        UserError: It has none.
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
    """Errors before the loop starts are the config's; later ones mostly are not."""
    try:
        yield
    except Exception:
        with running(runner.model, "model") if progress.started else building("config"):
            raise


@contextmanager
def _removed_on_mistake(work_dir: str, progress: _Progress) -> Iterator[None]:
    """Remove the directories that a run made, if it ends in a mistake before it did anything."""
    path = Path(work_dir).absolute()
    made = next((p for p in [*reversed(path.parents), path] if not p.exists()), None)
    try:
        yield
    except UserError:
        if made is not None and not progress.iterated and os.environ.get("RANK", "0") == "0":
            shutil.rmtree(made, ignore_errors=True)
        raise
