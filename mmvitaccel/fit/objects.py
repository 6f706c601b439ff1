"""Checks of the records and boxes of a COCO json that a data set and its evaluator read."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from mmvitaccel.errors import UserError
from mmvitaccel.fit.coco.coco_json import read_list
from mmvitaccel.fit.coco.survey import Survey, survey
from mmvitaccel.fit.datasets import DataSet
from mmvitaccel.fit.json_classes import reads_json
from mmvitaccel.registry import type_name
from mmvitaccel.text_files import why_no_text


def check_objects(sets: Sequence[DataSet]) -> None:
    """Check each annotation of the data sets that parse them as mmdet's ``CocoDataset`` does.

    Raises:
        UserError: If a record lacks a field, two annotations have the same id, no annotation
            belongs to a picture, no box is valid, or masks are loaded and one is missing.
    """
    for data in sets:
        path = data.annotations
        if path is None or getattr(data.kind, "parse_data_info", None) is not _parser():
            continue
        found = survey(path)
        if found.lacking and reads_json(data.kind):
            encoding = why_no_text(Path(path).read_bytes())
            if encoding is not None:
                raise UserError(f"{path} {encoding}.")
            raise UserError(f"{path}: {found.lacking}; correct the file.")
        if reads_json(data.kind):
            _check_ids(path, found)
            _check_outlines(data, path, found)
        _check_pictures(path, found)
        _check_boxes(path, found)
        _check_flags(path, found)


def check_scored(path: str) -> None:
    """Check what pycocotools reads from the json of an evaluator.

    Raises:
        UserError: If an annotation lacks ``iscrowd`` (the evaluation would fail) or has the id of
            another one (it would be used instead of that one).
    """
    found = survey(path)
    if found.no_crowd:
        raise UserError(
            f"{path}: {found.no_crowd} has no 'iscrowd', which CocoMetric reads after the last "
            "picture; add 'iscrowd': 0 to each annotation that is not a crowd."
        )
    _check_ids(path, found)
    if found.zero:
        warnings.warn(
            f"{path}: {found.zero} has the id 0, with which pycocotools marks objects that were "
            "not detected, so this one counts as missed; let the ids of annotations begin at 1.",
            stacklevel=3,
        )


def _check_ids(path: str, found: Survey) -> None:
    """Refuse an id that two annotations have, because a look-up returns the last of them."""
    if found.double:
        raise UserError(
            f"{path}: {found.double} has the id of another annotation, so one box would be used "
            "for both; give each annotation of the file its own id."
        )


def _check_outlines(data: DataSet, path: str, found: Survey) -> None:
    """Refuse a box without a mask if its class is used and the pipeline loads masks."""
    steps = data.config.get("pipeline") or ()
    loads = [s for s in steps if isinstance(s, Mapping) and type_name(s) == "LoadAnnotations"]
    if not any(step.get("with_mask") for step in loads):
        return
    names = {c["id"]: c["name"] for c in read_list(path, "categories") or ()}
    kept = [
        place
        for category, place in found.no_mask.items()
        if category in names and (not data.classes or names[category] in data.classes)
    ]
    if kept:
        raise UserError(
            f"{path}: {kept[0]} has no 'segmentation' with polygons or run lengths, but "
            f"{data.where}.pipeline loads masks; add a mask to each annotation, or set "
            "with_mask=False in LoadAnnotations and use a model without a mask head."
        )
    no_area = found.no_area
    if no_area.count:
        what = (
            f"{path}: the masks of {no_area.count} of {found.total} objects have less than three "
            f"points, the first is {no_area.first}"
        )
        if no_area.count == found.total and data.where.startswith("train"):
            raise UserError(
                f"{what}: no object is left; a polygon is a list of x1, y1, x2, y2, x3, y3, ..."
            )
        warnings.warn(f"{what}: they are ignored; correct them if not intended.", stacklevel=4)


@cache
def _parser() -> Any:
    """Return the function that parses annotations; a new object if mmdet is not installed."""
    try:
        from mmdet.datasets import CocoDataset
    except ImportError:
        return object()
    return CocoDataset.parse_data_info


def _check_pictures(path: str, found: Survey) -> None:
    """Check that annotations refer to listed pictures, and that each picture has its own file."""
    unlisted, copies = found.unlisted, found.copies
    if copies.count:
        warnings.warn(
            f"{path}: {copies.count} pictures have the file of another picture, the first is "
            f"{copies.first}: each lacks the objects of the other; list each file once if this is "
            "not intended.",
            stacklevel=3,
        )
    if not unlisted.count:
        return
    what = (
        f"{path}: {unlisted.count} of {found.total} annotations belong to no picture that it "
        f"lists, the first is {unlisted.first}"
    )
    if unlisted.count == found.total:
        raise UserError(f"{what}: no object is left; give images and annotations the same ids.")
    warnings.warn(f"{what}: they are ignored; correct the ids if not intended.", stacklevel=3)


def _check_flags(path: str, found: Survey) -> None:
    """Warn of annotations that training and scoring pass over, if these are all."""
    crowds = found.total and found.crowds == found.total
    if crowds or (found.ignored and not found.total):
        flag, number = ("iscrowd", found.crowds) if crowds else ("ignore", found.ignored)
        warnings.warn(
            f"{path}: all {number} annotations that count have {flag}=1, and such objects are "
            f"neither learned nor looked for; set {flag} to 0 where one object is meant.",
            stacklevel=3,
        )


def _check_boxes(path: str, found: Survey) -> None:
    """Compare boxes with their pictures."""
    empty, beyond = found.empty, found.beyond
    total = found.total - found.unlisted.count
    if empty.count:
        what = (
            f"{path}: {empty.count} of {total} boxes have a side below one pixel or no area, or "
            f"lie outside their picture, the first is {empty.first}"
        )
        if empty.count == total:
            raise UserError(
                f"{what}: no object is left; boxes are x, y, width, height in pixels of the loaded "
                "picture."
            )
        warnings.warn(f"{what}: they are ignored; correct them if not intended.", stacklevel=3)
    if beyond.count:
        cause = (
            "; all boxes would fit as x1, y1, x2, y2, but they are read as x, y, width, height"
            if found.corners
            else ""
        )
        warnings.warn(
            f"{path}: {beyond.count} of {total} boxes extend beyond their picture, the first is "
            f"{beyond.first}{cause}; correct them if this is not intended.",
            stacklevel=3,
        )
