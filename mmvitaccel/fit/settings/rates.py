"""Numbers of optimizer and schedule with which a training learns nothing or turns around.

torch and mmengine refuse most others themselves.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any

from mmengine.config import Config

from mmvitaccel.errors import UserError
from mmvitaccel.fit.settings.numbers import check_whole, is_whole
from mmvitaccel.registry import type_name


def check_rates(cfg: Config) -> None:
    """Refuse rates and scales that are no numbers or turn the gradient around; warn of a rate of 0.

    Args:
        cfg: A training's.

    Raises:
        UserError: There is one.
    """
    for where, wrapper in _wrappers(cfg.get("optim_wrapper"), "optim_wrapper"):
        _check_rate(f"{where}.optimizer.lr", (wrapper.get("optimizer") or {}).get("lr"))
        clipping = wrapper.get("clip_grad")
        for key in ("max_norm", "clip_value") if isinstance(clipping, Mapping) else ():
            value = clipping.get(key)
            if _is_number(value) and not value > 0:
                raise UserError(
                    f"{where}.clip_grad.{key} is {value}, which leaves nothing of the gradient or "
                    "turns it around; give a number above 0."
                )
    scaling = cfg.get("auto_scale_lr")
    if isinstance(scaling, Mapping) and scaling.get("enable"):
        base = scaling.get("base_batch_size")
        if not is_whole(base) or base < 1:
            raise UserError(
                f"auto_scale_lr.base_batch_size is {base!r}, but the learning rate is scaled by "
                "the batch size over it; give a whole number, 1 or more."
            )
    for where, scheduler in schedulers_of(cfg.get("param_scheduler")):
        _check_scheduler(where, scheduler)


def schedulers_of(
    given: Any, where: str = "param_scheduler"
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Dotted key and config of the schedulers of one optimizer, or of several by name."""
    if isinstance(given, (list, tuple)):
        for index, item in enumerate(given):
            yield from schedulers_of(item, f"{where}.{index}")
    elif isinstance(given, Mapping) and "type" in given:
        yield where, given
    elif isinstance(given, Mapping):
        for key, item in given.items():
            yield from schedulers_of(item, f"{where}.{key}")


def _check_rate(where: str, rate: Any) -> None:
    if not _is_number(rate):
        return
    if not isfinite(rate):
        raise UserError(f"{where} is {rate}; give a finite number above 0.")
    if rate == 0:
        warnings.warn(
            f"{where} is 0: nothing is learned; give a number above 0 if this is not meant.",
            stacklevel=3,
        )


def _check_scheduler(where: str, scheduler: Mapping[str, Any]) -> None:
    check_whole(scheduler, where, "step_size", 1)
    gamma = scheduler.get("gamma")
    if _is_number(gamma) and not gamma >= 0:
        raise UserError(
            f"{where} ({type_name(scheduler)}) has gamma={gamma}, which makes a learning rate "
            "below 0; give a number from 0 to 1."
        )


def _wrappers(given: Any, where: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Dotted key and config of a wrapper, or of several by name."""
    if isinstance(given, Mapping) and isinstance(given.get("optimizer"), Mapping):
        yield where, given
    elif isinstance(given, Mapping):
        for key, value in given.items():
            yield from _wrappers(value, f"{where}.{key}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
