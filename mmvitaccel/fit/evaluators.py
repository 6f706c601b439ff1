"""Checks of evaluators: their annotations against the data sets', their metrics and the model."""

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
from mmvitaccel.fit.settings.metrics import check_coco_metric, check_names, check_packed
from mmvitaccel.registry import type_name


def check_evaluators(cfg: Config, *splits: str) -> None:
    """Compare each evaluator's annotation file with its data set's, by path, else by content.

    Pictures are compared by id and file name, because the ids of any two data sets may start at 1.

    Args:
        cfg: A config.
        *splits: ``val``, ``test``.

    Raises:
        UserError: If an id means different pictures in the two files, a picture is missing,
            annotations lack a field that the metric reads, the categories are not the classes, or a
            setting of the metric has no meaning.
    """
    for split in splits:
        coco = [e for e in _evaluators(cfg, split) if type_name(e[1]) == "CocoMetric"]
        sets = data_sets(cfg, split)
        if cfg.get(f"{split}_evaluator") in ([], {}):
            warnings.warn(
                f"{split}_evaluator is empty: nothing is measured; give a metric if this is not "
                "intended.",
                stacklevel=2,
            )
        check_names(coco)
        for where, evaluator in coco:
            check_coco_metric(where, evaluator)
            if _is_file(evaluator):
                check_scored(evaluator["ann_file"])
        if len(sets) > 1 and coco:
            _check_several(sets)
        for where, evaluator in _evaluators(cfg, split) if len(sets) == 1 else coco:
            if _is_file(evaluator):
                _check_file(sets, f"{where}.ann_file", evaluator)
        for where, evaluator in coco:
            for data in sets:
                check_packed(where, evaluator, data.config.get("pipeline") or ())


def check_predictions(cfg: Config, model: nn.Module, *splits: str) -> None:
    """Refuse a model that does not predict what an evaluator needs.

    Args:
        cfg: A config.
        model: The model of the config.
        *splits: ``val``, ``test``.

    Raises:
        UserError: If a recognizer does not average the scores of a sample's views, if a mask metric
            is given for a model without masks, or if ``topk`` exceeds the number of classes.
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
    way = getattr(getattr(model, "cls_head", None), "average_clips", "prob")
    if way not in ("prob", "score", None):
        raise UserError(
            f"model.cls_head.average_clips is {way!r}; give 'prob' or 'score', by which the views "
            "of a clip are averaged."
        )
    if way is None:
        raise UserError(
            f"{where} has an AccMetric, which needs one score per sample, but "
            "model.cls_head.average_clips is None, so there is one per view; set "
            "model.cls_head.average_clips='prob'."
        )


def _check_masks(model: nn.Module, where: str, evaluator: Mapping[str, Any]) -> None:
    given = evaluator.get("metric", ())
    if "segm" not in ([given] if isinstance(given, str) else given or ()):
        return
    parts = (f"{name} {type(part).__name__}".lower() for name, part in model.named_modules())
    # In mmdet and its projects, every module that predicts masks has "mask" in its name.
    if not any("mask" in part for part in parts):
        raise UserError(
            f"{where}.metric has 'segm', but the model does not predict masks; set "
            f"{where}.metric=bbox, or use a model with a mask head."
        )


def _check_ranks(model: nn.Module, where: str, evaluator: Mapping[str, Any]) -> None:
    """Compare ``topk`` with the number of classes; mmpretrain fails if it is larger."""
    given = evaluator.get("topk", 1)
    most = max(given) if isinstance(given, (list, tuple)) and given else given
    for head in heads_of(model):
        if isinstance(most, int) and most > head.num_classes:
            raise UserError(
                f"{where}.topk is {given}, but {head.where} is {head.num_classes}; give numbers "
                f"up to {head.num_classes}."
            )


def _evaluators(cfg: Config, split: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the dotted key and config of each evaluator."""
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
    """Refuse an id that occurs in two data sets, if both are evaluated together.

    Raises:
        UserError: If there is one.
    """
    seen: dict[Any, tuple[DataSet, str]] = {}
    for data in sets:
        own = _pictures(data.annotations or "") or {}
        for picture, name in own.items():
            if picture in seen:
                other, first = seen[picture]
                raise UserError(
                    f"{other.where} and {data.where} both have a picture with the id {picture!r} "
                    f"({first} and {name}), but CocoMetric finds pictures by id; give each picture "
                    "its own id, or test the data sets one by one."
                )
        seen |= {picture: (data, name) for picture, name in own.items()}


def _check_file(sets: Sequence[DataSet], where: str, evaluator: Mapping[str, Any]) -> None:
    """Compare an evaluator's json with those of the data sets that it evaluates."""
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
        warnings.warn(f"{both}; give one file to both if this is not intended.", stacklevel=3)
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
            f"{both}: they have the same pictures but differ otherwise; give one file to both if "
            "this is not intended.",
            stacklevel=3,
        )


def _pictures(path: str) -> dict[Any, str] | None:
    images = read_list(path, "images") if path.endswith(".json") else None
    if images is None or not all(isinstance(image.get("id"), (int, str)) for image in images):
        return None
    return {image.get("id"): str(image.get("file_name")) for image in images}
