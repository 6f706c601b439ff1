"""Comparison of class names, in the order of their labels, with the categories of a json."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from mmvitaccel.errors import UserError, closest
from mmvitaccel.fit.coco.coco_json import category_ids, read_list
from mmvitaccel.fit.datasets import DataSet
from mmvitaccel.registry import type_name

_NAMED = 5
_BY_NAME, _BY_NAME_AND_ID, _BY_PLACE = "by name", "by name in the order of ids", "by place"


def check_json_classes(data: DataSet, path: str, classes: Sequence[str]) -> None:
    """Compare the classes of a data set with the categories of its json.

    Args:
        data: A data set; it is not checked if mmdet's functions do not read its json.
        path: Path of the json.
        classes: Classes of the data set.

    Raises:
        UserError: If the json lacks a class or has it twice, if its labels have another order, or
            if no annotation has a category that it lists.
    """
    way = _ways().get(getattr(data.kind, "load_data_list", None))
    categories = read_list(path, "categories") if way else None
    if categories is None:
        return
    if way == _BY_NAME_AND_ID:
        categories = sorted(categories, key=lambda category: category.get("id", 0))
    names = [str(category.get("name")) for category in categories]
    if way == _BY_PLACE:
        _check_places(data, path, classes, names)
    else:
        _check_names(data, path, classes, names)
    _check_annotations(data, path, [category.get("id") for category in categories])


def check_scored_classes(data: DataSet, path: str, sorts: bool) -> None:
    """Compare the classes of a data set with the categories of the json that evaluates it.

    Args:
        data: The data set.
        path: Path of the json of mmdet's ``CocoMetric``. Label i means the i-th category whose
            name is one of the classes.
        sorts: Whether the metric sorts the categories by id.

    Raises:
        UserError: If the json lacks a class or has it twice, or if its labels have another order.
    """
    categories = read_list(path, "categories") if data.classes else None
    if categories is None:
        return
    if sorts:
        categories = sorted(categories, key=lambda category: category.get("id", 0))
    _check_names(data, path, data.classes or (), [str(c.get("name")) for c in categories])


def reads_json(kind: type | None) -> bool:
    """Check whether a data set reads its json with a function of mmdet that is known here."""
    return getattr(kind, "load_data_list", None) in _ways()


@cache
def _ways() -> dict[Any, str]:
    """Return how mmdet's data sets assign labels, by the function that reads the json."""
    # Imported here, because recognizers and classifiers do not need mmdet.
    try:
        from mmdet import datasets
    except ImportError:
        return {}
    kinds = {
        "CocoDataset": _BY_NAME,
        "BaseVideoDataset": _BY_NAME,
        "Objects365V2Dataset": _BY_NAME,
        "Objects365V1Dataset": _BY_NAME_AND_ID,
        "LVISV05Dataset": _BY_PLACE,
        "LVISV1Dataset": _BY_PLACE,
    }
    return {getattr(datasets, kind).load_data_list: way for kind, way in kinds.items()}


def _check_places(data: DataSet, path: str, classes: Sequence[str], names: Sequence[str]) -> None:
    """Compare classes with a json in which each category is a class, whatever its name."""
    place = f"{data.where}.metainfo.classes"
    if len(names) != len(classes):
        raise UserError(
            f"{place} has {len(classes)} names ({list_names(classes)}), but {path} has "
            f"{len(names)} categories ({list_names(names)}), and {data.kind.__name__} assigns a "
            "label to each; give the names of all, in the json's order."
        )
    compare_names(place, classes, path, names, "the json's order")


def _check_names(data: DataSet, path: str, classes: Sequence[str], names: Sequence[str]) -> None:
    """Compare classes with the categories that have their names."""
    known = [name for name in names if name in set(classes)]
    absent = [name for name in classes if name not in known]
    place = f"{data.where}.metainfo.classes"
    if absent:
        raise UserError(
            f"{place} has {list_names(absent)}, which {path} lacks (it has "
            f"{list_names(names) or 'none'}), so the labels of other classes would shift; correct "
            f"the names{closest(absent[0], names) or '.'}"
        )
    double = next((name for name in known if known.count(name) > 1), None)
    if double is not None:
        raise UserError(
            f"{path} has {known.count(double)} categories named {double!r}, so the labels of "
            f"{place} would shift; give each category its own name."
        )
    if known != list(classes):
        raise UserError(
            f"{place} is {list_names(classes)}, but {path} has these in the order "
            f"{list_names(known)}, which is the order of the labels; boxes would get the name of "
            "another class; use the json's order."
        )


def _check_annotations(data: DataSet, path: str, ids: Sequence[Any]) -> None:
    """Compare the categories of annotations with those that the json lists."""
    used = category_ids(path)
    unknown = sorted(used - set(filter(_is_plain, ids)), key=repr)
    if not used:
        if data.where.startswith("train") and _loads_objects(data):
            warnings.warn(
                f"{path} has no annotations, so the training with {data.where} sees no object; "
                "give the json with the boxes if this is not intended.",
                stacklevel=4,
            )
    elif unknown:
        shown = ", ".join(map(repr, unknown[:_NAMED]))
        what = (
            f"{path}: annotations have the category_id {shown}, but the ids of its categories are "
            f"{', '.join(map(repr, ids[:_NAMED]))}"
        )
        if len(unknown) == len(used):
            raise UserError(
                f"{what}: no object belongs to a class; use the same ids in both places."
            )
        warnings.warn(f"{what}: these objects are ignored; correct the ids.", stacklevel=4)


def _loads_objects(data: DataSet) -> bool:
    """Whether a pipeline loads annotations; that of pictures without labels loads empty ones."""
    steps = data.config.get("pipeline") or ()
    return not any(type_name(s) == "LoadEmptyAnnotations" for s in steps if isinstance(s, Mapping))


def _is_plain(value: Any) -> bool:
    return isinstance(value, (int, float, str))


def compare_names(
    left: str,
    names: Sequence[str],
    right: str,
    others: Sequence[str],
    cure: str,
    certain: bool = True,
) -> None:
    """Refuse the same names in two orders; warn if the names differ.

    Args:
        left: Where the first names are, for messages.
        names: The first names.
        right: Where the other names are, for messages.
        others: The other names.
        cure: What to give to both, for messages.
        certain: Whether another order is an error; else it is a warning.

    Raises:
        UserError: If the order differs and this is certainly wrong.
    """
    if tuple(names) == tuple(others):
        return
    reordered = sorted(names) == sorted(others)
    at = next((i for i, (a, b) in enumerate(zip(names, others)) if a != b), None)
    if at is None:
        what = f"{left} has {len(names)} classes and {right} has {len(others)}"
    else:
        what = f"class {at} is {names[at]!r} in {left} and {others[at]!r} in {right}"
    if reordered:
        sentence = f"{what}: the same classes in another order; give both {cure}."
        if certain:
            raise UserError(sentence)
    else:
        sentence = f"{what}: correct one of them if they do not mean the same."
    warnings.warn(sentence, stacklevel=3)


def list_names(names: Sequence[str]) -> str:
    """Return the first five names, and the number of the others, as text."""
    shown = ", ".join(map(repr, names[:_NAMED]))
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED} more"
