"""Lists of videos, frame folders, sounds and pictures, read line by line before a run."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmvitaccel.errors import UserError
from mmvitaccel.fit.datasets import DataSet
from mmvitaccel.fit.heads import Head

_SAMPLE = 32


@dataclass(frozen=True)
class Entry:
    """A line of a list.

    Attributes:
        line: Its number, from 1.
        text: As it stands there.
        name: The file or folder.
        labels: Its classes.
    """

    line: int
    text: str
    name: str
    labels: tuple[int, ...]


def check_list(data: DataSet, head: Head | None, labels_needed: bool) -> None:
    """Read a data set's list as the data set will, and compare its labels with the head.

    Args:
        data: Of mmaction2's ``VideoDataset``, ``RawframeDataset`` and ``AudioDataset`` or
            mmpretrain's ``CustomDataset``; others are left alone.
        head: The recognizer's; None where it is not known.
        labels_needed: Whether a line without a label is a mistake.

    Raises:
        UserError: A line cannot be read, a label is none of the head's, or a file is not there.
    """
    reader = _READERS.get(reading_class(data.kind))
    if reader is None or data.annotations is None:
        return
    entries = list(_entries(data, *reader))
    if not entries:
        raise UserError(f"{data.annotations} has no lines; give a list with a sample a line.")
    if head is not None:
        _check_labels(data, head, entries, labels_needed)
    _check_files(data, entries, reader[1])


def reading_class(kind: type | None) -> str:
    """The class whose way of reading a list a data set has."""
    name = getattr(getattr(kind, "load_data_list", None), "__qualname__", "")
    return name.partition(".")[0]


def _entries(
    data: DataSet, split: Callable[[str, Mapping[str, Any]], tuple[str, list[str]]], prefix: str
) -> Iterator[Entry]:
    path = data.annotations or ""
    for number, text in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        try:
            name, labels = split(text.strip(), data.config)
            yield Entry(number, text, name, tuple(int(label) for label in labels))
        except ValueError as error:
            raise UserError(f"{path}, line {number}: {text!r} {_reason(error)}.") from error


def _reason(error: ValueError) -> str:
    message = str(error)
    if message.startswith("invalid literal"):
        return f"has {message.rpartition(': ')[2]} where a whole number is expected; correct it"
    return message


def _video(text: str, config: Mapping[str, Any]) -> tuple[str, list[str]]:
    """``VideoDataset``: a name and a label, or labels."""
    delimiter = config.get("delimiter", " ")
    name, *labels = text.split(delimiter)
    if not name:
        raise ValueError("names no video; remove the line")
    if len(labels) > 1 and not config.get("multi_class"):
        raise ValueError(
            f"has {1 + len(labels)} fields and not two, a name and a label; for names with "
            f"{'spaces' if delimiter == ' ' else repr(delimiter)} set the data set's delimiter to "
            "something that is in no name, such as a comma, and write the list with it"
        )
    return name, labels


def _frames(text: str, config: Mapping[str, Any]) -> tuple[str, list[str]]:
    """``RawframeDataset`` and ``AudioDataset``: a name, perhaps an offset, a number, labels."""
    fields = text.split()
    numbers = 2 if config.get("with_offset") else 1
    many = len(fields) > numbers + 2 and not config.get("multi_class")
    if len(fields) <= numbers or many:
        what = "a name, an offset, " if numbers == 2 else "a name, "
        raise ValueError(
            f"has {len(fields)} fields where {what}a number of frames and a label are expected; "
            "names with spaces cannot stand in this list, rename the folder or file"
        )
    if int(fields[numbers]) < 1:
        raise ValueError(f"says {fields[numbers]} frames; correct it or remove the line")
    return fields[0], fields[1 + numbers :]


def _picture(text: str, config: Mapping[str, Any]) -> tuple[str, list[str]]:
    """``CustomDataset`` of mmpretrain: a name, which may have spaces, and a label."""
    if not config.get("with_label", True):
        return text, []
    name, _, label = text.rpartition(" ")
    if not name:
        raise ValueError("has one field and not two, a name and a label; add what is missing")
    return name, [label]


_READERS = {
    "VideoDataset": (_video, "video"),
    "RawframeDataset": (_frames, "img"),
    "AudioDataset": (_frames, "audio"),
    "CustomDataset": (_picture, "img_path"),
}


def _check_labels(data: DataSet, head: Head, entries: Sequence[Entry], labels_needed: bool) -> None:
    labels = {label for entry in entries for label in entry.labels}
    bare = next((entry for entry in entries if not entry.labels), None)
    if labels_needed and bare is not None and data.config.get("with_label", True):
        raise UserError(
            f"{data.annotations}, line {bare.line}: {bare.text!r} has no label; add one from 0 to "
            f"{head.num_classes - 1}."
        )
    for entry in entries:
        wrong = [x for x in entry.labels if not 0 <= x < head.num_classes]
        if not wrong or (wrong == [-1] and not labels_needed):
            continue
        from_one = min(labels) == 1 and max(labels) == head.num_classes
        cure = (
            "labels count from 0, subtract 1 from each"
            if from_one
            else f"correct the label or set {head.where}={max(labels) + 1}"
        )
        raise UserError(
            f"{data.annotations}, line {entry.line}: {entry.text!r} has the label {wrong[0]}, but "
            f"{head.where} is {head.num_classes}, for labels from 0 to {head.num_classes - 1}; "
            f"{cure}."
        )
    if data.where.startswith("train") and labels and max(labels) + 1 < head.num_classes:
        warnings.warn(
            f"{head.where} is {head.num_classes}, but the labels of {data.annotations} end at "
            f"{max(labels)}; set {head.where}={max(labels) + 1} if there are no more classes.",
            stacklevel=3,
        )
    elif labels and min(labels) == 1 and len(labels) > 1 and data.where.startswith("train"):
        warnings.warn(
            f"the labels of {data.annotations} begin at 1, and labels count from 0; subtract 1 "
            "from each if class 0 is not meant to be without samples.",
            stacklevel=3,
        )


def _check_files(data: DataSet, entries: Sequence[Entry], prefix: str) -> None:
    """Look for some of the files, spread over the list; all would take minutes on a network."""
    given = data.config.get("data_prefix")
    if isinstance(given, str):
        folder = os.path.join(data.config.get("data_root") or "", given)
    elif isinstance(given, Mapping) and given.get(prefix, "") is not None:
        folder = data.folder(prefix)
    else:
        return
    if "://" in folder or not (folder == "" or os.path.isdir(folder)):
        return
    for entry in entries[:: max(len(entries) // _SAMPLE, 1)]:
        path = os.path.join(folder, entry.name)
        if "://" not in path and not path.startswith("s3:") and not os.path.exists(path):
            raise UserError(
                f"{data.annotations}, line {entry.line}: {path} does not exist; put it there, or "
                f"correct the line or {data.where}.data_prefix."
            )
