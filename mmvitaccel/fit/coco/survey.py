"""A single pass over the records of a COCO json: missing fields, boxes outside pictures."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from math import isfinite
from typing import Any

from mmvitaccel.fit.coco.coco_json import each_record, is_listed, read_list

_NUMBER = (int, float)
_ID = (int, str)
_WORDS = {_NUMBER: "a number", _ID: "a whole number or a text", (str,): "a text"}
_FLAGS = ("iscrowd", "ignore")
_FIELDS: dict[str, dict[str, tuple[type, ...]]] = {
    "images": dict(id=_ID, height=_NUMBER, width=_NUMBER),
    "categories": dict(id=_ID, name=(str,)),
    "annotations": dict(id=_ID, image_id=_ID, category_id=_ID),
}
_TRIANGLE = 6  # numbers
_OUTSIDE = 1.0  # tolerance in pixels for boxes that rounding moved outside their picture


@dataclass
class Found:
    """Number of annotations with a property, and a description of the first."""

    count: int = 0
    first: str = ""

    def add(self, words: str) -> None:
        """Count one annotation, described by ``words``."""
        self.count += 1
        self.first = self.first or words


@dataclass
class Survey:
    """Findings about a json.

    Attributes:
        total: Number of annotations, without those marked ``ignore``.
        ignored: Number of annotations marked ``ignore``.
        crowds: Number of annotations in ``total`` that are crowds.
        lacking: Description of the first record with a missing or invalid field; empty if there
            is none.
        no_crowd: Description of the first annotation without ``iscrowd``; empty if all have it.
        double: Description of the first annotation with the id of another one; empty if there is
            none.
        zero: Description of the annotation with the id 0; empty if there is none.
        no_mask: For each category id, a description of the first valid box without a mask.
        no_area: Valid boxes whose mask has no polygon of three points.
        copies: Pictures with the file of another picture.
        unlisted: Annotations of pictures that the json does not list.
        empty: Boxes that mmdet's data sets drop: without area or completely outside the picture.
        beyond: Boxes that extend beyond their picture.
        corners: Whether all boxes could be x1, y1, x2, y2 in their pictures.
    """

    total: int = 0
    ignored: int = 0
    crowds: int = 0
    lacking: str = ""
    no_crowd: str = ""
    double: str = ""
    zero: str = ""
    no_mask: dict[Any, str] = field(default_factory=dict)
    no_area: Found = field(default_factory=Found)
    copies: Found = field(default_factory=Found)
    unlisted: Found = field(default_factory=Found)
    empty: Found = field(default_factory=Found)
    beyond: Found = field(default_factory=Found)
    corners: bool = True


def survey(path: str) -> Survey:
    """Survey a json. The result is cached until the file changes.

    Args:
        path: Path of an existing file.
    """
    return _survey(os.path.realpath(path), os.stat(path).st_mtime_ns)


# Cached, because train, val and evaluators often use the same file.
@lru_cache(maxsize=8)
def _survey(path: str, changed: int) -> Survey:
    result, ids = Survey(), set()
    sizes = _sizes(path, result)
    if not is_listed(path, "annotations"):
        result.lacking = result.lacking or "it has no list of records under 'annotations'"
    for index, record in enumerate(each_record(path, "annotations")):
        place = _place("annotations", index, record)
        lack = (
            _lack("annotations", index, record)
            or _lack_of_flag(place, record)
            or _lack_of_box(place, record)
        )
        if lack:
            result.lacking = result.lacking or lack
            continue
        if record.get("iscrowd") is None:
            result.no_crowd = result.no_crowd or place
        if record["id"] in ids:
            result.double = result.double or place
        ids.add(record["id"])
        if record["id"] == 0:
            result.zero = place
        if record.get("ignore"):
            result.ignored += 1
            continue
        result.total += 1
        result.crowds += bool(record.get("iscrowd"))
        _look_at_box(result, record, sizes, place)
    return result


def _sizes(path: str, result: Survey) -> dict[Any, tuple[float, float, str]]:
    """Return width, height and name of each picture by its id; record faults in ``result``."""
    sizes: dict[Any, tuple[float, float, str]] = {}
    files: dict[str, Any] = {}
    categories: dict[Any, str] = {}
    for key in ("images", "categories"):
        records = read_list(path, key)
        if records is None:
            result.lacking = result.lacking or f"it has no list of records under {key!r}"
        for index, record in enumerate(records or ()):
            lack = _lack(key, index, record)
            if not lack and key == "categories":
                if record["id"] in categories:
                    other = categories[record["id"]]
                    lack = f"{_place(key, index, record)} has the id of the category {other!r}"
                categories.setdefault(record["id"], record["name"])
            if lack or key == "categories":
                result.lacking = result.lacking or lack
                continue
            name = record.get("file_name", record.get("coco_url"))
            if not isinstance(name, str):
                lack = f"{_place(key, index, record)} has {_shown(record, 'file_name')}"
            elif record["id"] in sizes:
                lack = (
                    f"{_place(key, index, record)} has the id of the picture "
                    f"{sizes[record['id']][2]}"
                )
            elif not (record["width"] >= 1 and record["height"] >= 1):
                lack = (
                    f"{_place(key, index, record)} has the size {record['width']} x "
                    f"{record['height']} pixels (width x height), but both must be 1 or more"
                )
            result.lacking = result.lacking or lack
            if not lack and files.setdefault(name, record["id"]) != record["id"]:
                result.copies.add(f"{_place(key, index, record)}, {name} as id {files[name]!r}")
            sizes.setdefault(record["id"], (record["width"], record["height"], str(name)))
    return sizes


def _lack(key: str, index: int, record: Any) -> str:
    """Describe a record's missing or invalid field; return an empty string if there is none."""
    if not isinstance(record, Mapping):
        return f"{key}[{index}] is {reprlib.repr(record)}, not an object"
    for name, kinds in _FIELDS[key].items():
        value = record.get(name)
        whole = kinds == _ID and _is_number(value) and value == int(value)
        if not whole and (
            not isinstance(value, kinds) or (kinds == _NUMBER and not _is_number(value))
        ):
            kind = f" where {_WORDS[kinds]} is needed" if name in record else ""
            return f"{_place(key, index, record)} has {_shown(record, name)}{kind}"
    return ""


def _lack_of_flag(place: str, record: Mapping[str, Any]) -> str:
    """Description of a flag that is no number: the text '0' would count as true."""
    for name in _FLAGS:
        if record.get(name) is not None and not _is_number(record[name]):
            return f"{place} has {_shown(record, name)} where 0 or 1 is needed"
    return ""


def _lack_of_box(place: str, record: Mapping[str, Any]) -> str:
    if record.get("ignore"):
        return ""
    box = record.get("bbox")
    if not (isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))):
        need = " where x, y, width and height are needed" if "bbox" in record else ""
        return f"{place} has {_shown(record, 'bbox')}{need}"
    if box[2] < 0 or box[3] < 0:
        return f"{place} has {_shown(record, 'bbox')}, with a width or height below 0"
    if not _is_number(record.get("area")):
        cure = "where a number is needed" if "area" in record else "(width x height of the box)"
        return f"{place} has {_shown(record, 'area')} {cure}"
    return ""


def _look_at_box(
    result: Survey,
    record: Mapping[str, Any],
    sizes: Mapping[Any, tuple[float, float, str]],
    place: str,
) -> None:
    if record["image_id"] not in sizes:
        result.unlisted.add(f"{place} with image_id {record['image_id']!r}")
        return
    x, y, width, height = record["bbox"]
    across, down, name = sizes[record["image_id"]]
    right, below = x + width, y + height
    result.corners &= x < width <= across + _OUTSIDE and y < height <= down + _OUTSIDE
    inside = min(right, across) > max(x, 0) and min(below, down) > max(y, 0)
    found: Found | None
    if not inside or width < 1 or height < 1 or record["area"] <= 0:
        found = result.empty
    elif min(x, y) < -_OUTSIDE or right > across + _OUTSIDE or below > down + _OUTSIDE:
        found = result.beyond
    else:
        found = None
    if found is not result.empty:
        mask = record.get("segmentation")
        if not _is_mask(mask):
            result.no_mask.setdefault(record["category_id"], place)
        elif not _has_area(mask):
            result.no_area.add(place)
    if found is None:
        return
    size = f"{across:g} x {down:g}"
    found.add(f"{place}, bbox {record['bbox']}, area {record['area']:g}, in {name} of {size}")


def _is_mask(given: Any) -> bool:
    """Check whether a value is run-length encoded, or a list of polygons."""
    if isinstance(given, Mapping):
        return True
    return isinstance(given, list) and bool(given) and all(isinstance(p, list) for p in given)


def _has_area(mask: Any) -> bool:
    """Check whether mmdet's data sets keep a mask: run lengths, or a polygon of three points."""
    if isinstance(mask, Mapping):
        return mask.get("counts") is not None and mask.get("size") is not None
    return any(len(polygon) % 2 == 0 and len(polygon) >= _TRIANGLE for polygon in mask)


def _is_number(value: Any) -> bool:
    """Check whether a value is a finite number within the range of a float."""
    try:
        return isinstance(value, _NUMBER) and isfinite(value)
    except OverflowError:
        return False


def _place(key: str, index: int, record: Any) -> str:
    known = isinstance(record, Mapping) and isinstance(record.get("id"), (*_ID, float))
    return f"{key}[{index}] (id {record['id']!r})" if known else f"{key}[{index}]"


def _shown(record: Mapping[str, Any], name: str) -> str:
    return f"{reprlib.repr(record[name])} as {name!r}" if name in record else f"no {name!r}"
