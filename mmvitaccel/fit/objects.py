"""The records of a json that a data set and its evaluator read, and boxes against the pictures."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from mmvitaccel.errors import UserError
from mmvitaccel.fit.coco.coco_json import read_list
from mmvitaccel.fit.coco.survey import Survey, survey
from mmvitaccel.fit.datasets import DataSet
from mmvitaccel.fit.json_classes import reads_json
from mmvitaccel.registry import type_name


def check_objects(sets: Sequence[DataSet]) -> None:
    """Look at each annotation of the data sets that read them as mmdet's ``CocoDataset`` does.

    Raises:
        UserError: A record lacks what is read, two annotations have one id, no annotation is of a
            picture, no box is left, or masks are loaded and one is not there.
    """
    for data in sets:
        path = data.annotations
        if path is None or getattr(data.kind, "parse_data_info", None) is not _parser():
            continue
        found = survey(path)
        if found.lacking and reads_json(data.kind):
            raise UserError(f"{path}: {found.lacking}; correct the file.")
        if reads_json(data.kind):
            _check_ids(path, found)
            _check_outlines(data, path, found)
        _check_pictures(path, found)
        _check_boxes(path, found)


def check_scored(path: str) -> None:
    """Look at what pycocotools reads of a json that results are scored by.

    Raises:
        UserError: An annotation lacks ``iscrowd``, at which scoring would end, or has the id of
            another one, for which it would stand too.
    """
    found = survey(path)
    if found.no_crowd:
        raise UserError(
            f"{path}: {found.no_crowd} has no 'iscrowd', which CocoMetric reads when all pictures "
            "are done; add 0 to each annotation that is no crowd."
        )
    _check_ids(path, found)
    if found.zero:
        warnings.warn(
            f"{path}: {found.zero} has the id 0, which pycocotools takes for none when it counts "
            "what was found: this object counts as missed; let the ids of annotations begin at 1.",
            stacklevel=3,
        )


def _check_ids(path: str, found: Survey) -> None:
    """Refuse an id that two annotations have: what asks for either gets the last of them."""
    if found.double:
        raise UserError(
            f"{path}: {found.double} has the id of another annotation too, by which annotations "
            "are found: one box would stand for both; give each an id of its own in the whole "
            "file."
        )


def _check_outlines(data: DataSet, path: str, found: Survey) -> None:
    """Refuse a box of a class without a mask, where the pipeline loads masks."""
    steps = data.config.get("pipeline") or ()
    loads = [s for s in steps if isinstance(s, Mapping) and type_name(s) == "LoadAnnotations"]
    if not any(step.get("with_mask") for step in loads):
        return
    names = {c["id"]: c["name"] for c in read_list(path, "categories") or ()}
    kept = [
        place
        for category, place in found.no_outline.items()
        if category in names and (not data.classes or names[category] in data.classes)
    ]
    if kept:
        raise UserError(
            f"{path}: {kept[0]} has no 'segmentation', but {data.where}.pipeline loads masks; add "
            "an outline to each annotation, or set with_mask=False in LoadAnnotations and take a "
            "model without a mask head."
        )


@cache
def _parser() -> Any:
    """What makes objects of annotations; None without mmdet, which recognizers need not have."""
    try:
        from mmdet.datasets import CocoDataset
    except ImportError:
        return object()
    return CocoDataset.parse_data_info


def _check_pictures(path: str, found: Survey) -> None:
    """Compare the pictures that annotations name with those that there are."""
    strangers = found.strangers
    if not strangers.count:
        return
    what = (
        f"{path}: {strangers.count} of {found.total} annotations are of no picture that it lists, "
        f"the first {strangers.first}"
    )
    if strangers.count == found.total:
        raise UserError(f"{what}: no object is left; give images and annotations the same ids.")
    warnings.warn(f"{what}: they are left out; correct the ids if not meant.", stacklevel=3)


def _check_boxes(path: str, found: Survey) -> None:
    """Compare boxes with their pictures."""
    empty, beyond = found.empty, found.beyond
    placed = found.total - found.strangers.count
    if empty.count:
        what = (
            f"{path}: {empty.count} of {placed} boxes have less than a pixel or no area, or lie "
            f"outside of their picture, the first {empty.first}"
        )
        if empty.count == placed:
            raise UserError(
                f"{what}: no object is left; boxes are x, y, width and height in pixels, of the "
                "pictures as they are loaded."
            )
        warnings.warn(f"{what}: they are left out; correct them if not meant.", stacklevel=3)
    if beyond.count:
        cause = (
            "; all boxes would fit as x1, y1, x2, y2, but x, y, width, height is what is read"
            if found.corners
            else ""
        )
        warnings.warn(
            f"{path}: {beyond.count} of {placed} boxes end outside of their picture, the first "
            f"{beyond.first}{cause}; correct them if this is not meant.",
            stacklevel=3,
        )
