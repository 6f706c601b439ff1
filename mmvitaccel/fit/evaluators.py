"""The annotations that an evaluator scores by against those of the data set."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from filecmp import cmp
from pathlib import PurePath
from typing import Any

from mmengine.config import Config
from torch import nn

from mmvitaccel.errors import UserError
from mmvitaccel.fit.coco.coco_json import read_list
from mmvitaccel.fit.datasets import DataSet, data_sets
from mmvitaccel.fit.objects import check_scored
from mmvitaccel.registry import type_name


def check_evaluators(cfg: Config, *splits: str) -> None:
    """Compare each evaluator's annotation file with its data set's, by path, else by content.

    Image ids prove nothing: two sets both count from 1.

    Args:
        cfg: A config.
        *splits: ``val``, ``test``.

    Raises:
        UserError: Pictures of one id are different ones in the two files, one is missing, or
            annotations lack what scoring reads.
    """
    for split in splits:
        for _, path in _annotation_files(cfg, split, "CocoMetric"):
            check_scored(path)
        sets = data_sets(cfg, split)
        if len(sets) == 1 and sets[0].annotations:
            for where, path in _annotation_files(cfg, split):
                _compare(sets[0], sets[0].annotations, where, path)


def check_averaged(cfg: Config, model: nn.Module, *splits: str) -> None:
    """Refuse a recognizer whose head gives scores view by view where they are scored by sample.

    Args:
        cfg: A config.
        model: Built from it.
        *splits: ``val``, ``test``.

    Raises:
        UserError: An evaluator cannot take its scores.
    """
    head = getattr(model, "cls_head", None)
    if getattr(head, "average_clips", "") is not None:
        return
    for split in splits:
        given = cfg.get(f"{split}_evaluator")
        several = given if isinstance(given, (list, tuple)) else [given]
        if any(isinstance(e, Mapping) and type_name(e) == "AccMetric" for e in several):
            raise UserError(
                f"{split}_evaluator has an AccMetric, which takes one score for each sample, but "
                "model.cls_head.average_clips is None, so that there is one for each view; set "
                "model.cls_head.average_clips='prob'."
            )


def _annotation_files(cfg: Config, split: str, kind: str = "") -> Iterator[tuple[str, str]]:
    """Dotted key and path of each evaluator's file, of those of one type where that is named."""
    given = cfg.get(f"{split}_evaluator")
    several = isinstance(given, (list, tuple))
    for index, evaluator in enumerate(given if several else [given]):
        path = evaluator.get("ann_file") if isinstance(evaluator, Mapping) else None
        if kind and path is not None and type_name(evaluator) != kind:
            continue
        if isinstance(path, str) and os.path.isfile(path):
            place = f"{split}_evaluator.{index}" if several else f"{split}_evaluator"
            yield f"{place}.ann_file", path


def _compare(data: DataSet, own: str, where: str, path: str) -> None:
    if os.path.samefile(own, path) or cmp(own, path, shallow=False):
        return
    both = f"{where} is {path} and {data.where}.ann_file is {own}"
    ours, theirs = _pictures(own), _pictures(path)
    if ours is None or theirs is None:
        warnings.warn(f"{both}; give one file to both if this is not meant.", stacklevel=3)
        return
    for picture, name in ours.items():
        if picture not in theirs:
            raise UserError(f"{both}, which has no picture {picture} ({name}); give one file.")
        if PurePath(theirs[picture]).name != PurePath(name).name:
            raise UserError(
                f"{both}: picture {picture} is {theirs[picture]} there and {name} here; give one "
                "file to both."
            )
    warnings.warn(
        f"{both}: they name the same pictures and differ in the rest; give one file to both if "
        "this is not meant.",
        stacklevel=3,
    )


def _pictures(path: str) -> dict[Any, str] | None:
    images = read_list(path, "images") if path.endswith(".json") else None
    if images is None or not all(isinstance(image.get("id"), (int, str)) for image in images):
        return None
    return {image.get("id"): str(image.get("file_name")) for image in images}
