"""The records of a json that a data set and its evaluator read, and boxes against the pictures."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

from mmvitaccel.errors import UserError
from mmvitaccel.fit.coco.survey import Survey, survey
from mmvitaccel.fit.datasets import DataSet
from mmvitaccel.fit.json_classes import reads_json


def check_objects(sets: Sequence[DataSet]) -> None:
    """Look at each annotation of the data sets that read them as mmdet's ``CocoDataset`` does.

    Raises:
        UserError: A record lacks what is read, no annotation is of a picture, or no box is left.
    """
    for data in sets:
        path = data.annotations
        if path is None or getattr(data.kind, "parse_data_info", None) is not _parser():
            continue
        found = survey(path)
        if found.lacking and reads_json(data.kind):
            raise UserError(f"{path}: {found.lacking}; correct the file.")
        _check_pictures(path, found)
        _check_boxes(path, found)


def check_scored(path: str) -> None:
    """Look at what pycocotools reads of a json that results are scored by.

    Raises:
        UserError: An annotation lacks ``iscrowd``, at which scoring would end.
    """
    found = survey(path)
    if found.no_crowd:
        raise UserError(
            f"{path}: {found.no_crowd} has no 'iscrowd', which CocoMetric reads when all pictures "
            "are done; add 0 to each annotation that is no crowd."
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
