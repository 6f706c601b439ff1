"""Names of classes in the order of their labels against the categories of a json."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

from mmvitaccel.errors import UserError, closest
from mmvitaccel.fit.coco.coco_json import category_ids, read_list
from mmvitaccel.fit.datasets import DataSet

_NAMED = 5
_BY_NAME, _BY_NAME_AND_ID, _BY_PLACE = "by name", "by name in the order of ids", "by place"


def check_json_classes(data: DataSet, path: str, classes: Sequence[str]) -> None:
    """Compare the classes of a data set with the categories by which a json gives its labels.

    Args:
        data: One that reads its labels otherwise, or by code of its own, is left alone.
        path: Its json.
        classes: Its classes.

    Raises:
        UserError: The json lacks a class or has it twice, gives labels in another order, or has
            annotations of no category that it lists.
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
    """Compare the classes of a data set with the categories of a json that scores its labels.

    Args:
        data: Whose labels are scored.
        path: The json of mmdet's ``CocoMetric``, which finds a label's category by its place among
            those of the classes' names.
        sorts: Whether it sorts the categories by their ids.

    Raises:
        UserError: It lacks a class or has it twice, or gives labels in another order.
    """
    categories = read_list(path, "categories") if data.classes else None
    if categories is None:
        return
    if sorts:
        categories = sorted(categories, key=lambda category: category.get("id", 0))
    _check_names(data, path, data.classes or (), [str(c.get("name")) for c in categories])


def reads_json(kind: type | None) -> bool:
    """Whether a data set reads its json by a function of mmdet's that is known here."""
    return getattr(kind, "load_data_list", None) in _ways()


@cache
def _ways() -> dict[Any, str]:
    """How mmdet's data sets give labels, by the function that reads the json."""
    # reason: imported here, since recognizers and classifiers do without mmdet
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
    """Compare classes of which every category of the json is one, whatever its name."""
    place = f"{data.where}.metainfo.classes"
    if len(names) != len(classes):
        raise UserError(
            f"{place} has {len(classes)} names ({list_names(classes)}), but {path} has "
            f"{len(names)} categories ({list_names(names)}), and {data.kind.__name__} gives a "
            "label to each; give the names of all, in the json's order."
        )
    compare_names(place, classes, path, names, "the json's order")


def _check_names(data: DataSet, path: str, classes: Sequence[str], names: Sequence[str]) -> None:
    """Compare classes with the categories that have their names."""
    held = [name for name in names if name in set(classes)]
    absent = [name for name in classes if name not in held]
    place = f"{data.where}.metainfo.classes"
    if absent:
        raise UserError(
            f"{place} has {list_names(absent)}, which {path} lacks (it has "
            f"{list_names(names) or 'none'}): the labels of other classes would move; correct the "
            f"names{closest(absent[0], names) or '.'}"
        )
    double = next((name for name in held if held.count(name) > 1), None)
    if double is not None:
        raise UserError(
            f"{path} has {held.count(double)} categories named {double!r}: the labels of {place} "
            "would move; give each category a name of its own."
        )
    if held != list(classes):
        raise UserError(
            f"{place} is {list_names(classes)}, but {path} has these in the order "
            f"{list_names(held)}, by which labels are given: boxes would carry another class's "
            "name; use the json's order."
        )


def _check_annotations(data: DataSet, path: str, ids: Sequence[Any]) -> None:
    """Compare the categories that annotations name with those that the json lists."""
    used = category_ids(path)
    unknown = sorted(used - set(filter(_is_plain, ids)), key=repr)
    if not used:
        if data.where.startswith("train"):
            warnings.warn(
                f"{path} has no annotations: the training of {data.where} sees no object; give "
                "the json with the boxes if this is not meant.",
                stacklevel=4,
            )
    elif unknown:
        shown = ", ".join(map(repr, unknown[:_NAMED]))
        what = (
            f"{path}: annotations have the category_id {shown}, and its categories the id "
            f"{', '.join(map(repr, ids[:_NAMED]))}"
        )
        if len(unknown) == len(used):
            raise UserError(
                f"{what}: none belongs to a class, so that no object is left; give both the same "
                "numbers."
            )
        warnings.warn(f"{what}: these objects are left out; correct one of them.", stacklevel=4)


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
    """Refuse one set of names in two orders; warn of names that differ at their place."""
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
        sentence = f"{what}: names at one place should mean one thing; correct one if they do not."
    warnings.warn(sentence, stacklevel=3)


def list_names(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    shown = ", ".join(map(repr, names[:_NAMED]))
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED} more"
