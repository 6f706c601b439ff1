"""A run's checkpoints: disk space, atomic writes, and the last complete one.

mmengine writes a checkpoint under its final name, removes the oldest before the new one is
complete, and then rewrites ``last_checkpoint`` in place. A run that is killed meanwhile may leave a
partial file, none, or an empty ``last_checkpoint``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner
from torch import nn

from mmvitaccel.errors import UserError, building, closest
from mmvitaccel.runner.checkpoint_size import best_bytes, checkpoint_bytes
from mmvitaccel.whole_files import check_folder, whole_file

LAST = "last_checkpoint"


@building("config")
def check_room(cfg: Config, model: nn.Module) -> None:
    """Check that a training's checkpoint folder has space for a checkpoint.

    Raises:
        UserError: The folder is not writable, or its disk is too full.
    """
    hook = (cfg.get("default_hooks") or {}).get("checkpoint") or {}
    work_dir, best = str(cfg.work_dir), best_bytes(cfg, model)
    what = "a checkpoint of this training" + (" beside the best one" if best else "")
    needed = {work_dir: 0}
    needed[str(hook.get("out_dir") or work_dir)] = checkpoint_bytes(cfg, model) + best
    for place, num_bytes in needed.items():
        if "://" not in place:
            check_folder(place, num_bytes, what)


@contextmanager
def whole_checkpoints(runner: Runner) -> Iterator[None]:
    """Write checkpoints atomically, and remove old ones only after the new one is complete."""
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook):
            hook._save_checkpoint_with_step = functools.partial(
                _save, hook, hook._save_checkpoint_with_step
            )
            if hook.save_best:
                hook._save_best_checkpoint = functools.partial(
                    _save_best, hook, hook._save_best_checkpoint
                )
    put = LocalBackend.put
    LocalBackend.put = _put
    try:
        yield
    finally:
        LocalBackend.put = put


def last_checkpoint(work_dir: str) -> str | None:
    """The checkpoint for resuming a training; None if there is none.

    The one in ``last_checkpoint``, or if this file is empty or its checkpoint does not exist, as
    after a killed run, the newest ``epoch_*.pth`` or ``iter_*.pth``.
    """
    note = Path(work_dir, LAST)
    if not note.is_file():
        return None
    named = note.read_text(errors="replace").strip()
    if named and ("://" in named or Path(named).exists()):
        return named
    found = [p for kind in ("epoch_*.pth", "iter_*.pth") for p in Path(work_dir).glob(kind)]
    return str(max(found, key=lambda path: path.stat().st_mtime)) if found else None


def _put(backend: LocalBackend, obj: bytes, filepath: str | Path) -> None:
    """Atomic ``LocalBackend.put``."""
    with whole_file(filepath) as file:
        file.write(obj)


class _Later:
    """A file backend with delayed removals."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.waiting: list[Callable[[], None]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def remove(self, path: str) -> None:
        self.waiting.append(functools.partial(self.backend.remove, path))

    def rmtree(self, path: str) -> None:
        self.waiting.append(functools.partial(self.backend.rmtree, path))


def _save(hook: CheckpointHook, save: Callable[..., None], *args: Any, **kwargs: Any) -> None:
    """Save a checkpoint with the hook, and remove old ones afterwards."""
    backend = hook.file_backend
    hook.file_backend = later = _Later(backend)
    try:
        save(*args, **kwargs)
    finally:
        hook.file_backend = backend
    for remove in later.waiting:
        remove()


def _save_best(
    hook: CheckpointHook, save: Callable[..., None], runner: Runner, metrics: dict[str, Any]
) -> None:
    """Save the best checkpoint with the hook.

    Raises:
        UserError: No evaluator returns the metric that selects it.
    """
    absent = [key for key in hook.key_indicators if key not in ("auto", *metrics)]
    if absent and metrics:
        raise UserError(
            f"default_hooks.checkpoint.save_best is {absent[0]!r}, but the evaluators give "
            f"{', '.join(map(repr, metrics))}; correct it and go on with --resume"
            f"{closest(absent[0], metrics) or '.'}"
        )
    save(runner, metrics)
