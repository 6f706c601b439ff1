"""Data loaders: numbers that the first batch would stumble over, and samples that are left out."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from mmvitaccel.errors import UserError, closest
from mmvitaccel.fit.settings.numbers import check_whole

_FILTERS = ("bbox_min_size", "filter_empty_gt", "min_size")  # that mmdet's data sets read


def check_loaders(cfg: Config, *splits: str) -> None:
    """Refuse sizes and numbers of workers without a meaning; warn of samples that are not scored.

    Args:
        cfg: A config.
        *splits: ``train``, ``val``, ``test``; those that are switched off are left alone.

    Raises:
        UserError: A number is none, or too small.
    """
    for split in splits:
        where, loader = f"{split}_dataloader", cfg.get(f"{split}_dataloader")
        if not isinstance(loader, Mapping) or cfg.get(f"{split}_cfg") is None:
            continue
        if "batch_size" in loader and loader["batch_size"] is None:
            raise UserError(f"{where}.batch_size is None; give 1 or more.")
        check_whole(loader, where, "batch_size", 1)
        check_whole(loader, where, "num_workers", 0)
        if loader.get("num_workers"):
            check_whole(loader, where, "prefetch_factor", 1)
        if split != "train" and loader.get("drop_last") and loader.get("batch_size", 1) > 1:
            warnings.warn(
                f"{where}.drop_last is True: samples that fill no batch of "
                f"{loader['batch_size']} are left out of the figures; set {where}.drop_last=False "
                "if this is not meant.",
                stacklevel=2,
            )


def check_filter(where: str, dataset: Mapping[str, Any]) -> None:
    """Warn of a misspelt key of ``filter_cfg``, which no data set reads.

    Args:
        where: Dotted key of the data set.
        dataset: Its config.
    """
    given = dataset.get("filter_cfg")
    for key in given if isinstance(given, Mapping) else ():
        near = closest(str(key), _FILTERS) if key not in (*_FILTERS, "_scope_") else ""
        if near:
            warnings.warn(
                f"{where}.filter_cfg has the key {key!r}, which filters nothing{near}",
                stacklevel=2,
            )
