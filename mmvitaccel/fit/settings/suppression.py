"""Settings by which predictions are chosen, which are read when the first picture is predicted."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from mmvitaccel.errors import UserError, closest

_WAYS = ("nms", "soft_nms", "nms_match", "nms_rotated", "nms_quadri")  # of mmcv


def check_suppression(model: Any, training: bool, where: str = "model") -> None:
    """Look at the suppression of boxes and the thresholds in a model's config, at any depth.

    Args:
        model: A model's config, or a part of it.
        training: Whether its ``train_cfg`` is looked at too, which only training reads.
        where: Its dotted key.

    Raises:
        UserError: mmcv has no such suppression, or its threshold is no share.
    """
    if isinstance(model, (list, tuple)):
        for index, part in enumerate(model):
            check_suppression(part, training, f"{where}.{index}")
    if not isinstance(model, Mapping):
        return
    for key, value in model.items():
        if key == "train_cfg" and not training:
            continue
        if key == "nms" and isinstance(value, Mapping):
            _check_suppression(value, f"{where}.nms")
        if key == "score_thr" and isinstance(value, (int, float)) and value >= 1:
            warnings.warn(
                f"{where}.score_thr is {value}, and scores end at 1: nothing is found; give a "
                "number below 1 if this is not meant.",
                stacklevel=2,
            )
        check_suppression(value, training, f"{where}.{key}")


def _check_suppression(nms: Mapping[str, Any], where: str) -> None:
    kind, threshold = nms.get("type"), nms.get("iou_threshold")
    # A class or a function stands for itself
    if isinstance(kind, str) and kind.isidentifier() and kind not in _WAYS:
        raise UserError(
            f"{where}.type is {kind!r}; give one of {', '.join(_WAYS)}{closest(kind, _WAYS) or '.'}"
        )
    if isinstance(threshold, (int, float)) and not 0 <= threshold <= 1:
        raise UserError(
            f"{where}.iou_threshold is {threshold}; give a number from 0 to 1, above which boxes "
            "overlap too much."
        )
