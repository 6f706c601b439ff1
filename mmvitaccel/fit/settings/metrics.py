"""Settings of metrics that are read when all pictures are done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmvitaccel.errors import UserError, closest
from mmvitaccel.registry import type_name

_ITEMS = (
    *("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l"),
    *("AR@100", "AR@300", "AR@1000", "AR_s@1000", "AR_m@1000", "AR_l@1000"),
)
_LIMITS = 3  # pycocotools names as many numbers of detections
_PACKED = "instances"  # the key under which annotations reach an evaluator


def check_coco_metric(where: str, evaluator: Mapping[str, Any]) -> None:
    """Refuse what mmdet's ``CocoMetric`` takes and stumbles over at its end.

    Args:
        where: Dotted key of the evaluator.
        evaluator: Its config.

    Raises:
        UserError: Nothing is measured, or thresholds, items or limits have no meaning.
    """
    given = evaluator.get("metric", "bbox")
    kinds = list(given) if isinstance(given, (list, tuple)) else [given]
    if not kinds and not evaluator.get("format_only"):
        raise UserError(
            f"{where}.metric is {given!r}, so that nothing is measured; give bbox, segm, proposal "
            "or proposal_fast."
        )
    thresholds = evaluator.get("iou_thrs")
    several = thresholds if isinstance(thresholds, (list, tuple)) else [thresholds]
    if thresholds is not None and not all(_is_share(value) for value in several):
        raise UserError(
            f"{where}.iou_thrs is {thresholds!r}; give a number from 0 to 1, or a list of such."
        )
    items = evaluator.get("metric_items")
    unknown = [item for item in items or () if item not in _ITEMS]
    if unknown:
        raise UserError(
            f"{where}.metric_items has {unknown[0]!r}; give some of {', '.join(_ITEMS)}"
            f"{closest(str(unknown[0]), _ITEMS) or '.'}"
        )
    limits = evaluator.get("proposal_nums")
    # mmdet's own evaluation in several processes, as for V3Det, takes any number of them
    others = kinds == ["proposal_fast"] or evaluator.get("use_mp_eval")
    if isinstance(limits, (list, tuple)) and len(limits) < _LIMITS and not others:
        raise UserError(
            f"{where}.proposal_nums is {tuple(limits)}, but CocoMetric reads {_LIMITS} numbers of "
            "detections, as in (100, 300, 1000); give as many."
        )


def check_names(evaluators: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """Refuse two ``CocoMetric`` whose figures have one name, at which mmengine ends a test.

    Args:
        evaluators: Dotted key and config of each.

    Raises:
        UserError: Two measure the same under one prefix.
    """
    seen: dict[tuple[str, str], str] = {}
    for where, evaluator in evaluators:
        if evaluator.get("format_only"):
            continue  # It writes files and has no figures
        given = evaluator.get("metric", "bbox")
        for kind in given if isinstance(given, (list, tuple)) else (given,):
            name = (str(evaluator.get("prefix") or "coco"), str(kind))
            other = seen.setdefault(name, where)
            if other != where:
                raise UserError(
                    f"{other} and {where} both measure {kind!r} under the prefix {name[0]!r}, and "
                    "figures need names of their own; give each another prefix."
                )


def check_packed(where: str, evaluator: Mapping[str, Any], steps: Sequence[Any]) -> None:
    """Refuse a ``CocoMetric`` without a json where samples do not carry their annotations either.

    Args:
        where: Dotted key of the evaluator.
        evaluator: Its config.
        steps: Pipeline of the data set that it scores.

    Raises:
        UserError: There are no annotations to score by.
    """
    last = steps[-1] if steps else None
    if evaluator.get("ann_file") is not None or evaluator.get("format_only"):
        return
    if not isinstance(last, Mapping) or type_name(last) != "PackDetInputs":
        return
    if _PACKED not in (last.get("meta_keys") or ()):
        raise UserError(
            f"{where} has no ann_file, and the last step of the pipeline does not pass the "
            f"annotations on; set {where}.ann_file to the data set's json."
        )


def _is_share(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1
