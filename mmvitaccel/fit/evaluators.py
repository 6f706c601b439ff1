"""Compares the annotations of evaluators with those of the data sets."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from filecmp import cmp
from pathlib import PurePath
from typing import Any

from mmengine.config import Config
from torch import nn

from mmvitaccel.errors import UserError
from mmvitaccel.fit.coco.coco_json import read_list
from mmvitaccel.fit.datasets import DataSet, data_sets
from mmvitaccel.fit.heads import heads_of
from mmvitaccel.fit.json_classes import check_scored_classes
from mmvitaccel.fit.objects import check_scored
from mmvitaccel.registry import type_name


def check_evaluators(cfg: Config, *splits: str) -> None:
    """Compare each evaluator's annotation file with its data set's, by path, else by content.

    Image ids alone are not sufficient, because ids of both sets may start at 1.

    Args:
        cfg: A config.
        *splits: ``val``, ``test``.

    Raises:
        UserError: Pictures of one id are different ones in the two files, one is missing,
            annotations lack what scoring reads, or the file's categories are not the classes.
    """
    for split in splits:
        coco = [e for e in _evaluators(cfg, split) if type_name(e[1]) == "CocoMetric"]
        for _, evaluator in coco:
            if _is_file(evaluator):
                check_scored(evaluator["ann_file"])
        sets = data_sets(cfg, split)
        if len(sets) > 1 and coco:
            _check_several(sets)
        for where, evaluator in _evaluators(cfg, split) if len(sets) == 1 else coco:
            if _is_file(evaluator):
                _check_file(sets, f"{where}.ann_file", evaluator)


def check_given(cfg: Config, model: nn.Module, *splits: str) -> None:
    """Refuse a model that does not give what an evaluator takes.

    Args:
        cfg: A config.
        model: The model of the config.
        *splits: ``val``, ``test``.

    Raises:
        UserError: A recognizer's head gives scores view by view where they are scored by sample, a
            model without masks is scored by them, or more classes are ranked than there are.
    """
    for split in splits:
        for where, evaluator in _evaluators(cfg, split):
            kind = type_name(evaluator)
            if kind == "AccMetric":
                _check_averaged(model, f"{split}_evaluator")
            elif kind == "CocoMetric":
                _check_masks(model, where, evaluator)
            elif kind == "Accuracy":
                _check_ranks(model, where, evaluator)


def _check_averaged(model: nn.Module, where: str) -> None:
    if getattr(getattr(model, "cls_head", None), "average_clips", "") is None:
        raise UserError(
            f"{where} has an AccMetric, which takes one score for each sample, but "
            "model.cls_head.average_clips is None, so that there is one for each view; set "
            "model.cls_head.average_clips='prob'."
        )


def _check_masks(model: nn.Module, where: str, evaluator: Mapping[str, Any]) -> None:
    given = evaluator.get("metric", ())
    if "segm" not in ([given] if isinstance(given, str) else given):
        return
    parts = (f"{name} {type(part).__name__}".lower() for name, part in model.named_modules())
    # reason: whatever makes masks is called so, in mmdet and in its projects
    if not any("mask" in part for part in parts):
        raise UserError(
            f"{where}.metric has 'segm', but the model has no part that makes masks; set "
            f"{where}.metric=bbox, or give it a mask head."
        )


def _check_ranks(model: nn.Module, where: str, evaluator: Mapping[str, Any]) -> None:
    """Compare mmpretrain's ``topk`` with the number of classes: it ends when it is above that."""
    given = evaluator.get("topk", 1)
    most = max(given) if isinstance(given, (list, tuple)) and given else given
    for head in heads_of(model):
        if isinstance(most, int) and most > head.num_classes:
            raise UserError(
                f"{where}.topk is {given}, but {head.where} is {head.num_classes}: of so few "
                f"classes there are no {most} best; give no number above {head.num_classes}."
            )


def _evaluators(cfg: Config, split: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Dotted key and config of each evaluator."""
    given = cfg.get(f"{split}_evaluator")
    several = isinstance(given, (list, tuple))
    for index, evaluator in enumerate(given if several else [given]):
        if isinstance(evaluator, Mapping):
            yield f"{split}_evaluator.{index}" if several else f"{split}_evaluator", evaluator


def _is_file(evaluator: Mapping[str, Any]) -> bool:
    path = evaluator.get("ann_file")
    return isinstance(path, str) and os.path.isfile(path)


def _is_same(one: str, other: str) -> bool:
    return os.path.samefile(one, other) or cmp(one, other, shallow=False)


def _check_several(sets: Sequence[DataSet]) -> None:
    """Refuse one id in two of the sets that are scored together, by these ids.

    Raises:
        UserError: Two have it.
    """
    seen: dict[Any, tuple[DataSet, str]] = {}
    for data in sets:
        own = _pictures(data.annotations or "") or {}
        for picture, name in own.items():
            if picture in seen:
                other, first = seen[picture]
                raise UserError(
                    f"{other.where} and {data.where} both have a picture with the id {picture!r} "
                    f"({first} and {name}), and CocoMetric scores by these ids; give each picture "
                    "an id of its own, or test one set after the other."
                )
        seen |= {picture: (data, name) for picture, name in own.items()}


def _check_file(sets: Sequence[DataSet], where: str, evaluator: Mapping[str, Any]) -> None:
    """Compare an evaluator's json with those of the data sets that it scores."""
    path = evaluator["ann_file"]
    for data in sets:
        own = data.annotations
        if own is not None and _is_same(own, path):
            continue
        if own is not None:
            _compare(data, own, where, path, alone=len(sets) == 1)
        if type_name(evaluator) == "CocoMetric":
            check_scored_classes(data, path, bool(evaluator.get("sort_categories")))


def _compare(data: DataSet, own: str, where: str, path: str, alone: bool) -> None:
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
    if alone:
        warnings.warn(
            f"{both}: they name the same pictures and differ in the rest; give one file to both "
            "if this is not meant.",
            stacklevel=3,
        )


def _pictures(path: str) -> dict[Any, str] | None:
    images = read_list(path, "images") if path.endswith(".json") else None
    if images is None or not all(isinstance(image.get("id"), (int, str)) for image in images):
        return None
    return {image.get("id"): str(image.get("file_name")) for image in images}
