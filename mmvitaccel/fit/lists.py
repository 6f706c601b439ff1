"""Checks of annotation lists: videos, frame folders, audio and pictures, one per line."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mmvitaccel.errors import UserError
from mmvitaccel.fit.datasets import DataSet
from mmvitaccel.fit.heads import Head
from mmvitaccel.fit.lines.readers import READERS, Reader
from mmvitaccel.text_files import read_lines_for_others

_SAMPLE = 32
_AVA_CLASSES = 81  # mmaction2's default of num_classes


@dataclass(frozen=True)
class Entry:
    """A line of a list.

    Attributes:
        line: Line number, from 1.
        text: The line as it is in the file.
        name: Name of the file or folder.
        labels: Labels of the sample.
    """

    line: int
    text: str
    name: str
    labels: tuple[int, ...]


def check_list(data: DataSet, head: Head | None, labels_needed: bool) -> None:
    """Read a data set's list as the data set does, and compare its labels with the head.

    Args:
        data: A ``VideoDataset``, ``RawframeDataset``, ``AudioDataset`` or ``AVADataset`` of
            mmaction2, or a ``CustomDataset`` of mmpretrain; others are ignored.
        head: Head of the recognizer; None if unknown.
        labels_needed: Whether a line without a label is an error.

    Raises:
        UserError: If a line cannot be read, a label is out of the head's range, or a file is
            missing.
    """
    reader = READERS.get(reading_class(data.kind))
    if reader is None or data.annotations is None:
        return
    split, folder = reader
    entries = list(_entries(data, split))
    if not entries:
        raise UserError(f"{data.annotations} has no lines; give a list with one sample per line.")
    if head is not None and reading_class(data.kind) == "AVADataset":
        _check_actions(data, head, entries)
    elif head is not None:
        _check_labels(data, head, entries, labels_needed)
        _check_repeated(data, entries)
    _check_files(data, entries, folder)


def reading_class(kind: type | None) -> str:
    """Return the name of the class whose ``load_data_list`` a data set uses."""
    name = getattr(getattr(kind, "load_data_list", None), "__qualname__", "")
    return name.partition(".")[0]


def _entries(data: DataSet, split: Reader) -> Iterator[Entry]:
    path = data.annotations or ""
    for number, text in enumerate(read_lines_for_others(path, UserError), 1):
        try:
            name, labels = split(text.strip(), data.config)
            yield Entry(number, text, name, tuple(int(label) for label in labels))
        except ValueError as error:
            raise UserError(f"{path}, line {number}: {text!r} {_reason(error)}.") from error


def _reason(error: ValueError) -> str:
    message = str(error)
    for start, kind in (("invalid literal", "whole number"), ("could not convert", "number")):
        if message.startswith(start):
            return f"has {message.rpartition(': ')[2]} where a {kind} is expected; correct it"
    return message


def _check_labels(data: DataSet, head: Head, entries: Sequence[Entry], labels_needed: bool) -> None:
    labels = {label for entry in entries for label in entry.labels}
    without = next((entry for entry in entries if not entry.labels), None)
    if labels_needed and without is not None and data.config.get("with_label", True):
        raise UserError(
            f"{data.annotations}, line {without.line}: {without.text!r} has no label; add one from "
            f"0 to {head.num_classes - 1}."
        )
    count = data.config.get("num_classes") if data.config.get("multi_class") else None
    if count is not None and count != head.num_classes:
        raise UserError(
            f"{head.where} is {head.num_classes}, but {data.where}.num_classes, the length of its "
            f"labels, is {count}; set both to the same number."
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
            f"{head.where} is {head.num_classes}, so labels are 0 to {head.num_classes - 1}; "
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
            f"the labels of {data.annotations} begin at 1, but labels count from 0; subtract 1 "
            "from each unless class 0 has no samples.",
            stacklevel=3,
        )


def _check_repeated(data: DataSet, entries: Sequence[Entry]) -> None:
    """Warn of one file with two labels, where a sample has one and is a whole file."""
    if data.config.get("multi_class") or data.config.get("with_offset"):
        return
    first: dict[str, Entry] = {}
    for entry in entries:
        other = first.setdefault(entry.name, entry)
        if entry.labels and other.labels and entry.labels != other.labels:
            warnings.warn(
                f"{data.annotations}: {entry.name} has the label {other.labels[0]} in line "
                f"{other.line} and {entry.labels[0]} in line {entry.line}; correct one if this is "
                "not meant.",
                stacklevel=3,
            )
            return


def _check_actions(data: DataSet, head: Head, entries: Sequence[Entry]) -> None:
    """Compare the actions of persons (one person may have several) with data set and head."""
    count = data.config.get("num_classes", _AVA_CLASSES)
    if count != head.num_classes:
        raise UserError(
            f"{head.where} is {head.num_classes}, but {data.where}.num_classes is {count}; set "
            "both to the number of actions plus 1."
        )
    for entry in entries:
        wrong = next((label for label in entry.labels if not 0 <= label < count), None)
        if wrong is not None:
            raise UserError(
                f"{data.annotations}, line {entry.line}: {entry.text!r} has the action {wrong}, "
                f"but {data.where}.num_classes is {count}, so actions are 1 to {count - 1}; "
                "correct the action, or num_classes of the data set and the head."
            )


def _check_files(data: DataSet, entries: Sequence[Entry], prefix: str) -> None:
    """Check that a sample of the files exists; all could take minutes on a network drive."""
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
