"""Checks of hooks that begin after the end of a training, and of ``CheckpointHook``'s arguments."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from mmvitaccel.errors import UserError, closest
from mmvitaccel.registry import type_name

# By key: the unit, and the offset to the training's length from which on a value is too late.
_TIMES = {
    "switch_epoch": ("epochs", 0),
    "begin_epoch": ("epochs", 0),
    "begin_iter": ("iters", 0),
    "num_last_epochs": ("epochs", 0),
    "action_epoch": ("epochs", 1),
}
_OF_THE_RUNNER = ("type", "priority")


def check_hooks(cfg: Config) -> None:
    """Warn of hooks that begin at an epoch or iteration that the training does not reach.

    Examples are mmdet's ``PipelineSwitchHook``, and ``YOLOXModeSwitchHook``, which counts from the
    end.

    Args:
        cfg: Config of a training.

    Raises:
        UserError: If ``CheckpointHook`` has an unknown argument; saving a checkpoint would fail.
    """
    loop = cfg.get("train_cfg") or {}
    late = []
    for where, hook in _hooks(cfg):
        for key, value in _times(hook):
            unit, least = _TIMES[key]
            length = loop.get(f"max_{unit}")
            if isinstance(length, int) and isinstance(value, int) and value >= length + least:
                late.append((f"{where} ({type_name(hook)}) has {key}={value}", unit, length))
        _check_saving(where, hook)
    begin, length = loop.get("val_begin"), loop.get("max_epochs", loop.get("max_iters"))
    if isinstance(begin, int) and isinstance(length, int) and begin > length:
        unit = "epochs" if "max_epochs" in loop else "iters"
        late.append((f"train_cfg has val_begin={begin}", unit, length))
    if late:
        _, unit, length = late[0]
        warnings.warn(
            f"train_cfg.max_{unit} is {length}, but {', '.join(what for what, _, _ in late)}: "
            "this never begins; set it to a value within the training if this is not intended.",
            stacklevel=2,
        )


def _hooks(cfg: Config) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the dotted key and config of each hook."""
    given = [
        *(("default_hooks", *item) for item in (cfg.get("default_hooks") or {}).items()),
        *(("custom_hooks", *item) for item in enumerate(cfg.get("custom_hooks") or ())),
    ]
    for holder, key, hook in given:
        if isinstance(hook, Mapping):
            yield f"{holder}.{key}", hook


def _times(hook: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the keys and values that say when a hook, or a part of its schedule, begins."""
    for part in (hook, *(hook.get("schedule") or ())):
        for key in _TIMES:
            if isinstance(part, Mapping) and key in part:
                yield key, part[key]


def _check_saving(where: str, hook: Mapping[str, Any]) -> None:
    """Check the arguments of ``CheckpointHook``, which passes unknown ones to the runner.

    Raises:
        UserError: If ``Runner.save_checkpoint`` does not have one of these arguments, or a number
            of epochs or files is not a whole number.
    """
    if type_name(hook) != CheckpointHook.__name__:
        return
    for key in ("interval", "max_keep_ckpts", "save_begin"):
        value = hook.get(key)
        if value is not None and not (isinstance(value, int) and not isinstance(value, bool)):
            raise UserError(f"{where}.{key} is {value!r}; give a whole number.")
    known: set[str] = set(_OF_THE_RUNNER)
    for called in (CheckpointHook, Runner.save_checkpoint):
        known |= set(inspect.signature(called).parameters) - {"self", "kwargs"}
    for key in hook:
        # mmengine records in `_scope_` which package a base config is from.
        if key not in known and key != "_scope_":
            raise UserError(
                f"{where} has the argument {key!r}, but neither CheckpointHook nor "
                f"Runner.save_checkpoint has one of this name; remove or correct it"
                f"{closest(key, known) or '.'}"
            )
