"""Parsers for the lines of lists of videos, frame folders, audio, pictures and actions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

_AVA_FIELDS = 8

Reader = Callable[[str, Mapping[str, Any]], tuple[str, list[str]]]
"""Parses a line, given the data set's config, and returns the name and the labels.

It raises a ValueError whose message continues the sentence "LINE ...".
"""


def _video(text: str, config: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Parse a line of ``VideoDataset``: a name, and one or more labels."""
    delimiter = config.get("delimiter", " ")
    name, *labels = text.split(delimiter)
    if not name:
        raise ValueError("names no video; remove the line")
    other = next((mark for mark in "\t,;" if not labels and _ends_in_number(name, mark)), None)
    if other is not None:
        raise ValueError(
            f"has one field with the delimiter {delimiter!r}, but a name and a label are expected; "
            f"set the data set's delimiter to {other!r}"
        )
    if "" in labels:
        raise ValueError(f"has the delimiter {delimiter!r} twice in a row; remove one")
    if len(labels) > 1 and not config.get("multi_class"):
        raise ValueError(
            f"has {1 + len(labels)} fields, but a name and a label are expected; for names with "
            f"{'spaces' if delimiter == ' ' else repr(delimiter)}, set the data set's delimiter to "
            "a character that is in no name, such as a comma, and use it in the list"
        )
    return name, labels


def _ends_in_number(text: str, mark: str) -> bool:
    """Check whether a mark divides a text into two parts, the second a number."""
    return text.count(mark) == 1 and text.partition(mark)[2].strip().isdecimal()


def _frames(text: str, config: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Parse a line of ``RawframeDataset`` or ``AudioDataset``.

    The fields are a name, an offset if the config has ``with_offset``, the number of frames and
    one or more labels.
    """
    fields = text.split()
    if not fields:
        raise ValueError("names no folder or file; remove the line")
    numbers = 2 if config.get("with_offset") else 1
    many = len(fields) > numbers + 2 and not config.get("multi_class")
    if len(fields) <= numbers or many:
        what = "a name, an offset, " if numbers == 2 else "a name, "
        raise ValueError(
            f"has {len(fields)} fields, but {what}a number of frames and a label are expected; "
            "this list does not support names with spaces, rename the folder or file"
        )
    if int(fields[numbers]) < 1:
        raise ValueError(f"has {fields[numbers]} frames; correct it or remove the line")
    return fields[0], fields[1 + numbers :]


def _action(text: str, config: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Parse a line of ``AVADataset``: video, time, box relative to the picture, action, person."""
    fields = text.split(",")
    if len(fields) < _AVA_FIELDS:
        raise ValueError(
            f"has {len(fields)} fields, but {_AVA_FIELDS} are expected: video, time, x1, y1, x2, "
            "y2, action, person; correct or remove it"
        )
    int(fields[1]), int(fields[7])
    box = [float(field) for field in fields[2:6]]
    if not (0 <= box[0] <= box[2] <= 1 and 0 <= box[1] <= box[3] <= 1):
        raise ValueError(
            f"has the box {', '.join(fields[2:6])}, but x1, y1, x2, y2 are relative to the "
            "picture, from 0 to 1; divide pixels by its width and height"
        )
    kept = config.get("custom_classes")
    if kept is None:
        return fields[0], [fields[6]]
    return fields[0], [str(1 + kept.index(int(fields[6])))] if int(fields[6]) in kept else []


def _picture(text: str, config: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Parse a line of mmpretrain's ``CustomDataset``: a name, spaces allowed, and a label."""
    if not config.get("with_label", True):
        return text, []
    name, _, label = text.rpartition(" ")
    if not name:
        raise ValueError("has one field, but a name and a label are expected; add the missing one")
    return name, [label]


READERS: dict[str, tuple[Reader, str]] = {
    "VideoDataset": (_video, "video"),
    "RawframeDataset": (_frames, "img"),
    "AudioDataset": (_frames, "audio"),
    "CustomDataset": (_picture, "img_path"),
    "AVADataset": (_action, "img"),
}
"""By the class of mmaction2 or mmpretrain that reads the list: the parser, and the key of the
folder in ``data_prefix``."""
