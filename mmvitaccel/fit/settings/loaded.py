"""What a pipeline loads of the annotations against what a detector learns from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from mmvitaccel.errors import UserError
from mmvitaccel.registry import type_name

_WITHOUT_MASKS = "BoxInst"  # learns masks from boxes


def check_loaded(detector: nn.Module, where: str, steps: Sequence[Any]) -> None:
    """Refuse a pipeline that does not load what the losses of mmdet's heads read.

    Args:
        detector: A built detector; other models have no such heads.
        where: Dotted key of the training set.
        steps: Its pipeline; one that does not load by mmdet's ``LoadAnnotations`` is left alone.

    Raises:
        UserError: Boxes, masks or segmentation maps are not loaded.
    """
    loading = [
        (index, step)
        for index, step in enumerate(steps)
        if isinstance(step, Mapping) and type_name(step) == "LoadAnnotations"
    ]
    if not loading:
        return
    for key, default, part in _needed(detector):
        if not any(step.get(key, default) for _, step in loading):
            index = loading[0][0]
            raise UserError(
                f"{where}.pipeline.{index} (LoadAnnotations) has no {key}=True, but the model's "
                f"{part} learns from what it loads; set {where}.pipeline.{index}.{key}=True, or "
                f"take a model without {part}."
            )


def _needed(detector: nn.Module) -> list[tuple[str, bool, str]]:
    """Arguments of ``LoadAnnotations`` with their defaults, and the parts that need them."""
    roi_head = getattr(detector, "roi_head", None)
    masks = [
        f"{prefix}mask_head"
        for prefix, holder in (("", detector), ("roi_head.", roi_head))
        if _is_mmdets(getattr(holder, "mask_head", None))
    ]
    needed = [("with_mask", False, masks[0])] if masks else []
    if _is_mmdets(getattr(roi_head, "semantic_head", None)):
        needed.append(("with_seg", False, "roi_head.semantic_head"))
    boxes = [k for k in ("rpn_head", "bbox_head") if _is_mmdets(getattr(detector, k, None))]
    if boxes:
        needed.append(("with_bbox", True, boxes[0]))
    return needed


def _is_mmdets(head: Any) -> bool:
    """Whether a head, or the first of a cascade, is of mmdet and learns from annotations."""
    if isinstance(head, nn.ModuleList):
        head = next(iter(head), None)
    kind = type(head)
    return (
        isinstance(head, nn.Module)
        and kind.__module__.startswith("mmdet.")
        and _WITHOUT_MASKS not in kind.__name__
    )
