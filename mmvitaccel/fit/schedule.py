"""Comparison of the learning rate schedule and of a resumed training with the training length."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmvitaccel.fit.settings.rates import schedulers_of
from mmvitaccel.registry import type_name

_LENGTHS = ("end", "T_max", "total_iters", "total_steps")


def check_schedule(cfg: Config) -> None:
    """Warn of a schedule that is shorter or longer than the training, or that never steps.

    :class:`ScheduleHook` checks schedules in iterations (a warm-up) for a training in epochs.
    """
    length, unit = _length(cfg)
    schedulers = [each for _, each in schedulers_of(cfg.get("param_scheduler"))]
    if length is not None:
        own = [s for s in schedulers if _unit(s) == unit]
        _compare(own, length, f"train_cfg.max_{unit} is {length}", whole=True)
    idle = next((s for s in schedulers if unit == "iters" and _waits_for_epochs(s)), None)
    if length is not None and idle is not None:
        warnings.warn(
            f"train_cfg counts iterations, but param_scheduler's {type_name(idle)} counts epochs, "
            "and such a training has only one, so it has no effect; set its by_epoch=False and "
            "give its lengths in iterations.",
            stacklevel=2,
        )


class ScheduleHook(Hook):
    """Warns of a schedule in iterations that is longer or shorter than a training in epochs.

    The number of iterations per epoch is known only when the data set is built.
    """

    def before_train(self, runner: Runner) -> None:
        """Compare the schedule with the training length."""
        length, unit = _length(runner.cfg)
        if unit != "epochs" or length is None:
            return
        schedulers = [each for _, each in schedulers_of(runner.cfg.get("param_scheduler"))]
        own = [s for s in schedulers if _unit(s) == "iters"]
        what = f"train_cfg.max_epochs is {length}, which are {runner.max_iters} iterations"
        _compare(own, runner.max_iters, what, whole=own == schedulers)


def _compare(schedulers: Sequence[Mapping[str, Any]], length: int, what: str, whole: bool) -> None:
    """Warn of schedules that end after ``length``, or before it if they are the whole schedule."""
    if not schedulers:
        return
    last = max(map(_end, schedulers))
    if whole and last < length:
        warnings.warn(
            f"{what}, but param_scheduler ends at {last:g}, and the learning rate is constant "
            "from there; set the schedulers' end and milestones to the training's length if this "
            "is not intended.",
            stacklevel=3,
        )
        return
    late = next((found for s in schedulers for found in _late(s, length)), None)
    if late is not None:
        warnings.warn(
            f"{what}, but param_scheduler has {late}, which the training does not reach; set the "
            "schedulers' end and milestones to the training's length if this is not intended.",
            stacklevel=3,
        )


def _waits_for_epochs(scheduler: Mapping[str, Any]) -> bool:
    """Check whether a scheduler only steps at the end of an epoch."""
    by_value = type_name(scheduler).startswith("ReduceOnPlateau")
    return (
        _unit(scheduler) == "epochs" and not scheduler.get("convert_to_iter_based") and not by_value
    )


def check_remaining_length(cfg: Config, path: str, meta: Mapping[str, Any]) -> None:
    """Warn if a resumed training has already reached its end.

    Args:
        cfg: Config of the resumed training.
        path: Path of the checkpoint, for messages.
        meta: ``meta`` of the checkpoint.
    """
    length, unit = _length(cfg)
    done = meta.get("epoch" if unit == "epochs" else "iter")
    if isinstance(done, int) and isinstance(length, int) and done >= length:
        warnings.warn(
            f"checkpoint {path} was trained for {done} {unit}, but train_cfg.max_{unit} is "
            f"{length}, so nothing is left to train; increase train_cfg.max_{unit} if this is not "
            "intended.",
            stacklevel=2,
        )


def _length(cfg: Config) -> tuple[int | None, str]:
    loop = cfg.get("train_cfg") or {}
    if loop.get("max_iters") is not None and loop.get("by_epoch") is not True:
        return loop.get("max_iters"), "iters"
    return loop.get("max_epochs"), "epochs"


def _unit(scheduler: Mapping[str, Any]) -> str:
    return "epochs" if scheduler.get("by_epoch", True) else "iters"


def _end(scheduler: Mapping[str, Any]) -> float:
    """Return when a scheduler stops changing values; infinity if its end is not set."""
    end = scheduler.get("end")
    return float("inf") if end is None else float(end)


def _late(scheduler: Mapping[str, Any], length: int) -> Iterator[str]:
    """Yield descriptions of a scheduler's settings that the training does not reach."""
    name = type_name(scheduler)
    for key in _LENGTHS:
        value = scheduler.get(key)
        begin = 0 if key == "end" else scheduler.get("begin", 0)
        if isinstance(value, (int, float)) and isfinite(value) and begin + value > length:
            yield f"{name}.{key}={value:g}"
    milestones = [m for m in scheduler.get("milestones") or () if m >= length]
    if milestones:
        yield f"{name} with the milestone {milestones[0]}"
