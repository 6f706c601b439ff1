"""Loops: the parts that one needs together, and its numbers."""

from __future__ import annotations

from collections.abc import Mapping

from mmengine.config import Config

from mmvitaccel.errors import UserError
from mmvitaccel.fit.settings.numbers import check_whole

_TOGETHER = (
    ("train_dataloader", "train_cfg", "optim_wrapper"),
    ("val_dataloader", "val_cfg", "val_evaluator"),
    ("test_dataloader", "test_cfg", "test_evaluator"),
)
_LEAST = {"max_epochs": 1, "max_iters": 1, "val_interval": 1, "val_begin": 0}


def check_parts(cfg: Config) -> None:
    """Refuse a loop of which only some parts are there, as mmengine's Runner does.

    Args:
        cfg: A config that is run.

    Raises:
        UserError: A part is missing.
    """
    for keys in _TOGETHER:
        absent = [key for key in keys if cfg.get(key) is None]
        if absent and len(absent) < len(keys):
            there = [key for key in keys if key not in absent]
            raise UserError(
                f"{' and '.join(absent)} {'is' if len(absent) == 1 else 'are'} not set, but "
                f"{' and '.join(there)} {'is' if len(there) == 1 else 'are'}; set all of "
                f"{', '.join(keys)}, or all to None."
            )


def check_length(cfg: Config) -> None:
    """Refuse a training that has no length, or one that only its end would stumble over.

    Raises:
        UserError: A number of epochs, iterations or between validations is no whole number or
            too small.
    """
    loop = cfg.get("train_cfg") or {}
    for key, least in _LEAST.items() if isinstance(loop, Mapping) else ():
        check_whole(loop, "train_cfg", key, least)
