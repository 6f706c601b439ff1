"""CocoVID: COCO's JSON format with ``videos``, and ``video_id`` and ``frame_id`` per image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.fileio import exists, get_local_path, load
from mmengine.logging import print_log


def read_cocovid(ann_file: str, backend_args: dict[str, Any] | None = None) -> dict[str, Any]:
    """Read a CocoVID json.

    Args:
        ann_file: Its path or address.
        backend_args: Arguments of mmengine's file backend.

    Returns:
        The content, with ``images``, ``categories`` and ``annotations``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not JSON, is not COCO-like, or has video frames without ``frame_id``.
    """
    if not exists(ann_file, backend_args=backend_args):
        raise FileNotFoundError(
            f"ImageNet VID: the annotation file {ann_file} is not there; write it from the "
            "released archives with tools/dataset_converters/imagenet_vid.py or set ann_file."
        )
    with get_local_path(ann_file, backend_args=backend_args) as local_path:
        try:
            content = load(local_path, file_format="json")
        except ValueError as error:
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
    for image in content["images"]:
        if image.get("video_id") is not None and image.get("frame_id") is None:
            raise ValueError(
                f"ImageNet VID: image {image['id']} of {ann_file} has video_id "
                f"{image['video_id']} but no frame_id, so its place in the video is not known; "
                "convert the set again."
            )
    return content


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
