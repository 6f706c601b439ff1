"""Checks of the number, names and order of classes in heads, data sets and checkpoints."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from mmengine.config import Config
from torch import nn

from mmvitaccel.errors import UserError, closest
from mmvitaccel.fit.datasets import DataSet, path_below
from mmvitaccel.fit.heads import (
    Head,
    blended_classes,
    class_weights,
    heads_of,
    things_and_stuff,
)
from mmvitaccel.fit.json_classes import check_json_classes, compare_names, list_names
from mmvitaccel.fit.lists import reading_class
from mmvitaccel.fit.voc.names import object_names
from mmvitaccel.registry import type_name

_XML_FOLDER = "Annotations"  # mmdet's default of ann_subdir


def check_head_classes(model: nn.Module, sets: Sequence[DataSet]) -> None:
    """Compare the number of classes of each head with its data sets.

    Raises:
        UserError: If they differ.
    """
    for data in sets:
        _check_label_counts(model, data)
        _check_things(model, data)
        for head in heads_of(model) if data.classes else ():
            # In a panoptic data set, boxes only have thing classes; maps have all classes.
            if head.num_classes not in (len(data.classes), data.num_things):
                raise UserError(_count_sentence(head, data))


def check_training_classes(model: nn.Module) -> None:
    """Compare the number of classes of each head with its class weights and the mixing of labels.

    Only training uses these.

    Raises:
        UserError: If they differ.
    """
    for where, count in blended_classes(model):
        for head in heads_of(model):
            if head.num_classes != count:
                raise UserError(
                    f"{where} is {count}, but {head.where} is {head.num_classes}: mixed labels "
                    "would be of another length than the scores; give both one number."
                )
    for where, given, needed in class_weights(model):
        if given != needed:
            raise UserError(
                f"{where} has {given} weights, but the head has {needed} scores (with softmax, one "
                "of them is the background's); give one weight for each score."
            )


def _check_things(model: nn.Module, data: DataSet) -> None:
    """Compare the numbers of thing and stuff classes of a panoptic head with the data set's."""
    classes = data.classes or ()
    known = data.num_things
    for where, things, stuff in things_and_stuff(model) if classes else ():
        # With own classes, thing_classes may still be the default of the data set's class. Then
        # the number of things is unknown.
        wanted = len(classes) if known is None else known if known <= len(classes) else things
        for key, own, right in (
            ("num_things_classes", things, wanted),
            ("num_stuff_classes", stuff, len(classes) - wanted),
        ):
            if own != right:
                raise UserError(
                    f"{where}.{key} is {own}, but {data.where} has {len(classes)} classes, "
                    f"{wanted} of things and {len(classes) - wanted} of stuff; set "
                    f"{where}.{key}={right} or correct {data.where}.metainfo."
                )


def _check_label_counts(model: nn.Module, data: DataSet) -> None:
    """Compare the classifiers of a head with a data set whose labels have several parts."""
    head = getattr(model, "cls_head", None)
    for key, count in getattr(data.kind, "LABEL_COUNTS", {}).items():
        # 0 disables a classifier; other heads do not have this attribute.
        own = getattr(head, key, None)
        if own and own != count:
            raise UserError(
                f"model.cls_head.{key} is {own}, but {data.where} has {count} "
                f"({data.kind.__name__}); set model.cls_head.{key}={count}."
            )


def check_set_classes(sets: Sequence[DataSet]) -> None:
    """Compare the classes of the data sets with each other and with their annotation files.

    Raises:
        UserError: If a json file lacks a class or has it twice, if its labels have another order,
            if no object of XML files has one of the classes, or if two data sets have the same
            classes in different orders.
    """
    for data in sets:
        if data.classes and data.annotations:
            check_json_classes(data, data.annotations, data.classes)
            _check_xml_classes(data, data.annotations, data.classes)
    for one, other in combinations([data for data in sets if data.classes], 2):
        compare_names(one.where, one.classes, other.where, other.classes, "metainfo.classes")


def check_palettes(cfg: Config, sets: Sequence[DataSet]) -> None:
    """Refuse a palette with fewer colours than classes if mmdet's hook draws: it would fail.

    Raises:
        UserError: If a data set has such a palette.
    """
    hook = (cfg.get("default_hooks") or {}).get("visualization") or {}
    own_colour = (cfg.get("visualizer") or {}).get("bbox_color") is not None
    if type_name(hook) != "DetVisualizationHook" or not hook.get("draw") or own_colour:
        return
    for data in sets:
        given = (data.config.get("metainfo") or {}).get("palette")
        palette = given or getattr(data.kind, "METAINFO", {}).get("palette")
        # A tuple is one colour for all classes; a string is the name of a palette.
        if isinstance(palette, list) and data.classes and len(palette) < len(data.classes):
            raise UserError(
                f"{data.where}.metainfo.palette has {len(palette)} colours"
                f"{'' if given else f' ({data.kind.__name__} has them)'} for {len(data.classes)} "
                "classes, and drawing a class without one fails; give one for each class, or "
                "palette='random'."
            )


def _check_xml_classes(data: DataSet, path: str, classes: Sequence[str]) -> None:
    """Compare the classes of a VOC data set with its files; it ignores objects of other classes.

    Raises:
        UserError: If no object has one of the classes.
    """
    if reading_class(data.kind) != "XMLDataset":
        return
    folder = os.path.join(data.folder("sub_data_root"), data.config.get("ann_subdir", _XML_FOLDER))
    found, files = object_names(path, folder)
    absent = [name for name in classes if name not in found]
    others = [name for name, _ in found.most_common() if name not in classes]
    what = f"{data.where}.metainfo.classes has {list_names(absent)}, of which the {files} files"
    if found and len(absent) == len(classes):
        raise UserError(
            f"{what} below {folder} have no object (their names are {list_names(others)}), so all "
            f"would be ignored; use the names in the files{closest(absent[0], others) or '.'}"
        )
    if absent and others:
        warnings.warn(
            f"{what} below {folder} have no object, and objects named {list_names(others)} are "
            "ignored; correct the names if this is not intended"
            f"{next(filter(None, (closest(name, others) for name in absent)), '.')}",
            stacklevel=4,
        )
    elif not found and data.where.startswith("train"):
        warnings.warn(
            f"the {files} files below {folder} have no objects, so the training with {data.where} "
            "sees none; correct the folder if this is not intended.",
            stacklevel=4,
        )


def check_folder_classes(data: DataSet, head: Head | None) -> None:
    """Compare class folders with the names of the classes and the head.

    Args:
        data: A ``CustomDataset`` of mmpretrain without an annotation file; others are ignored.
        head: Head of the classifier; None if unknown.

    Raises:
        UserError: If the order of the names or the head's number of classes differs from the
            folders.
    """
    root = _folder_of_classes(data)
    folders = sorted(f.name for f in os.scandir(root) if f.is_dir()) if root else []
    names = data.classes or ()
    if names and sorted(names) == folders and list(names) != folders:
        raise UserError(
            f"{data.where}.metainfo.classes is {list_names(names)}, but labels follow the folders "
            f"of {root} in the order {list_names(folders)}, so pictures would get the name of "
            "another class; use that order."
        )
    if head is not None and folders and not names and head.num_classes != len(folders):
        raise UserError(
            f"{head.where} is {head.num_classes}, but {data.where} has {len(folders)} classes, the "
            f"folders of {root} ({list_names(folders)}); set {head.where}={len(folders)} or "
            "correct the folders."
        )


def _folder_of_classes(data: DataSet) -> str | None:
    """Return the folder with a data set's class folders; None for other kinds of data sets."""
    config = data.config
    if reading_class(data.kind) != "CustomDataset" or "split" in config:
        return None
    if config.get("ann_file") or not config.get("with_label", True):
        return None
    prefix = config.get("data_prefix") or ""
    inner = prefix if isinstance(prefix, str) else prefix.get("img_path") or ""
    root = path_below(config.get("data_root") or "", inner)
    return root if os.path.isdir(root) else None


def check_checkpoint_classes(
    path: str, meta: Mapping[str, Any], sets: Sequence[DataSet], whole: bool
) -> None:
    """Compare the classes that a checkpoint was trained on with the first data set's.

    Args:
        path: Path of the checkpoint, for messages.
        meta: ``meta`` of the checkpoint; older files have no ``dataset_meta``.
        sets: Data sets of the config.
        whole: Whether the training is resumed; if only weights are loaded, a mismatch is a warning.

    Raises:
        UserError: If a resumed training has the same classes in another order.
    """
    info = meta.get("dataset_meta")
    classes = info.get("classes") if isinstance(info, Mapping) else meta.get("CLASSES")
    if not isinstance(classes, (list, tuple)) or not all(isinstance(c, str) for c in classes):
        return
    for data in sets[:1]:
        if data.classes and len(data.classes) == len(classes):
            compare_names(
                f"checkpoint {path}'s dataset_meta",
                tuple(classes),
                data.where,
                data.classes,
                "the checkpoint's order",
                certain=whole,
            )


def _count_sentence(head: Head, data: DataSet) -> str:
    classes = data.classes or ()
    return (
        f"{head.where} is {head.num_classes}, but {data.where} has {len(classes)} classes "
        f"({list_names(classes)}); set {head.where}={len(classes)} or correct "
        f"{data.where}.metainfo.classes."
    )
