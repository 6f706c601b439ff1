"""CocoVID: COCO's JSON format with ``videos``, and ``video_id`` and ``frame_id`` per image."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from mmengine.fileio import exists, get_local_path
from mmengine.logging import print_log

from mmvitaccel.text_files import decode_text

_NUMBER = (int, float)
_ID = (int, str)
# Fields that are read from each record.
_FIELDS: dict[str, dict[str, tuple[type, ...]]] = {
    "images": dict(
        id=_ID, file_name=(str,), height=_NUMBER, width=_NUMBER, video_id=(int,), frame_id=(int,)
    ),
    "categories": dict(id=_ID, name=(str,)),
    "annotations": dict(image_id=_ID, category_id=_ID, bbox=(list,), area=_NUMBER),
}
_MAY_LACK = ("video_id", "frame_id", "area")


def read_cocovid(ann_file: str, backend_args: dict[str, Any] | None = None) -> dict[str, Any]:
    """Read a CocoVID json.

    Args:
        ann_file: Path or URL of the file.
        backend_args: Arguments of mmengine's file backend.

    Returns:
        The content, with ``images``, ``categories`` and ``annotations``; a missing ``area`` is
        computed from the box.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: It is not JSON, is not COCO-like, or has video frames without ``frame_id``.
    """
    if not exists(ann_file, backend_args=backend_args):
        raise FileNotFoundError(
            f"ImageNet VID: the annotation file {ann_file} is not there; write it from the "
            "released archives with tools/dataset_converters/imagenet_vid.py or set ann_file."
        )
    with get_local_path(ann_file, backend_args=backend_args) as local_path:
        text = decode_text(Path(local_path).read_bytes(), ann_file)
        try:
            content = json.loads(text)
        except (RecursionError, ValueError) as error:
            raise ValueError(
                f"ImageNet VID: {ann_file} is not json or was cut short ({error}); convert again."
            ) from error
    fields = content if isinstance(content, dict) else {}
    absent = [key for key in ("images", "categories") if not fields.get(key)]
    if absent:
        raise ValueError(
            f"ImageNet VID: {ann_file} has no {' and no '.join(absent)}; "
            "a json in the CocoVID layout is needed."
        )
    content.setdefault("annotations", [])
    for key, fields in _FIELDS.items():
        _check_records(content[key], key, fields, ann_file)
    for key in ("images", "videos"):
        _check_sizes(content.get(key), key, ann_file)
    for annotation in content["annotations"]:
        # Files of other tools may have no area, which follows from the box
        if annotation.get("area") is None:
            annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3]
    for image in content["images"]:
        if image.get("video_id") is None and not isinstance(image["id"], int):
            raise ValueError(
                f"ImageNet VID: the image of {ann_file} with id {_short(image['id'])} is of no "
                "video, which then is numbered by the image; give it a whole number as id."
            )
        if image.get("video_id") is not None and image.get("frame_id") is None:
            raise ValueError(
                f"ImageNet VID: image {image['id']} of {ann_file} has video_id "
                f"{image['video_id']} but no frame_id, so its place in the video is not known; "
                "convert the set again."
            )
    return content


def _check_records(
    records: Any, key: str, fields: dict[str, tuple[type, ...]], ann_file: str
) -> None:
    """Refuse a list with records that lack a field or have a wrong type there."""
    if not isinstance(records, list):
        raise ValueError(
            f"ImageNet VID: {key} of {ann_file} is a {type(records).__name__} and no list; convert "
            "the set again."
        )
    for index, record in enumerate(records):
        if not isinstance(record, dict):
            raise ValueError(
                f"ImageNet VID: {key}[{index}] of {ann_file} is {_short(record)} and no record; "
                "convert the set again."
            )
        for name, kinds in fields.items():
            value = record.get(name)
            if not isinstance(value, kinds) and not (name in _MAY_LACK and value is None):
                raise ValueError(
                    f"ImageNet VID: {key}[{index}] of {ann_file} has {_short(value)} as {name!r}; "
                    "convert the set again."
                )
        _check_box(record, f"{key}[{index}] of {ann_file}")


def _check_sizes(records: Any, key: str, ann_file: str) -> None:
    """Refuse pictures and videos without a pixel; a video need not tell its size."""
    for index, record in enumerate(records if isinstance(records, list) else ()):
        known = record if isinstance(record, dict) else {}
        sides = [known.get(side) for side in ("width", "height")]
        # With this comparison, NaN is not a valid size
        if not all(side is None or (isinstance(side, _NUMBER) and side >= 1) for side in sides):
            raise ValueError(
                f"ImageNet VID: {key}[{index}] of {ann_file} is {_short(sides[0])} x "
                f"{_short(sides[1])} pixels (width x height), which none has; correct the size or "
                "convert the set again."
            )


def _check_box(record: dict[str, Any], place: str) -> None:
    box = record.get("bbox")
    if box is not None and not (
        len(box) == 4
        and all(isinstance(x, (int, float)) and isfinite(x) for x in box)
        and min(box[2:]) >= 0
    ):
        raise ValueError(
            f"ImageNet VID: {place} has {_short(box)} as 'bbox'; four finite numbers are needed, "
            "x, y, width and height, the last two not below 0; convert the set again."
        )


def _short(value: Any) -> str:
    """A value as text for messages."""
    return reprlib.repr(value)


def category_ids_by_class(
    categories: list[dict[str, Any]], classes: Sequence[str], ann_file: str
) -> dict[int, int]:
    """Match categories to classes by name.

    Args:
        categories: Categories of the JSON file, each with ``id`` and ``name``.
        classes: Names in the model's order.
        ann_file: File name for messages.

    Returns:
        Label (index in ``classes``) to category id, for the classes in the file.

    Raises:
        ValueError: The file has none of the classes.
    """
    id_of = {category["name"]: category["id"] for category in categories}
    found = {label: id_of[name] for label, name in enumerate(classes) if name in id_of}
    if not found:
        raise ValueError(
            f"ImageNet VID: {ann_file} has the categories {sorted(id_of)} but none of the "
            f"{len(classes)} classes {list(classes)[:5]}...; set metainfo=dict(classes=...) to "
            "the json's names."
        )
    if len(found) < len(classes):
        absent = [name for label, name in enumerate(classes) if label not in found]
        print_log(f"ImageNet VID: {ann_file} has no category for {absent}.", logger="current")
    return found
