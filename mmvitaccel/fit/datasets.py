"""The data sets of a config, inspected without building them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS

from mmvitaccel.errors import UserError
from mmvitaccel.fit.settings.numbers import check_whole
from mmvitaccel.text_files import read_lines_for_others

_BENCHMARK = "MOTChallengeDataset"
_BY_NAME = ("BaseDetDataset", "BaseVideoDataset")  # of mmdet


@dataclass(frozen=True)
class DataSet:
    """One data set of a config.

    Attributes:
        where: Dotted key in the config.
        config: Config of the data set.
        kind: Class of the data set; None if it is not registered.
    """

    where: str
    config: Mapping[str, Any]
    kind: type | None

    @cached_property
    def classes(self) -> tuple[str, ...] | None:
        """Class names in the order of the labels; None if unknown before building.

        Raises:
            UserError: If the names are a string or none, or if a name occurs twice in a data set
                that finds labels by name.
        """
        if self.kind is None or not issubclass(self.kind, BaseDataset):
            return None
        given = self.config.get("metainfo") or {}
        if self.kind.__name__ == _BENCHMARK and "classes" not in given:
            # Its default is the benchmark's 13 classes, but trackers only follow pedestrians.
            return None
        classes = given.get("classes", getattr(self.kind, "METAINFO", {}).get("classes"))
        if isinstance(classes, str):
            if not os.path.isfile(classes):
                raise UserError(
                    f"{self.where}.metainfo.classes is the text {classes!r}, not a list of names; "
                    f"write ({classes!r},) with a comma, or give an existing file with one name "
                    "per line."
                )
            classes = _names_in(classes)
        if self.finds_labels_by_name and isinstance(classes, Sequence) and not classes:
            raise UserError(
                f"{self.where}.metainfo.classes is {classes!r}: no object would have a class; give "
                "the names, or leave it out for those of the data set's class."
            )
        if not isinstance(classes, Sequence) or not classes:
            return None
        double = next((name for name in classes if list(classes).count(name) > 1), None)
        if double is not None and self.finds_labels_by_name:
            raise UserError(
                f"{self.where}.metainfo.classes has {double!r} {list(classes).count(double)} "
                "times; give each class once."
            )
        return tuple(classes)

    @property
    def finds_labels_by_name(self) -> bool:
        """Whether labels are found by class names; otherwise names are only for display.

        ImageNet has two classes named crane, and two named maillot.
        """
        bases = self.kind.__mro__ if self.kind is not None else ()
        return any(base.__name__ in _BY_NAME for base in bases)

    @property
    def num_things(self) -> int | None:
        """Number of thing classes; None if the data set is not panoptic."""
        given = self.config.get("metainfo") or {}
        things = given.get("thing_classes", getattr(self.kind, "METAINFO", {}).get("thing_classes"))
        return len(things) if things else None

    @property
    def annotations(self) -> str | None:
        """Path of the annotation file; None if it does not exist on this machine."""
        path = path_below(self.config.get("data_root") or "", self.config.get("ann_file"))
        return path if isinstance(path, str) and os.path.isfile(path) else None

    def folder(self, name: str) -> str:
        """Return the path of the folder with this name in ``data_prefix``."""
        prefix = self.config.get("data_prefix")
        inner = prefix.get(name) if isinstance(prefix, Mapping) else None
        return path_below(self.config.get("data_root") or "", inner or "")


def data_sets(cfg: Config, *splits: str) -> list[DataSet]:
    """Return the data sets in use; wrappers are replaced by the data sets that they wrap.

    Args:
        cfg: A config.
        *splits: ``train``, ``val``, ``test``.

    Raises:
        UserError: See :func:`dataset_configs`.
    """
    scope = cfg.get("default_scope") or "mmengine"
    return [
        DataSet(where, config, _kind(config, scope))
        for where, config in dataset_configs(cfg, *splits)
    ]


def dataset_configs(cfg: Config, *splits: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the dotted key and config of every data set of the splits that are enabled.

    Args:
        cfg: A config.
        *splits: ``train``, ``val``, ``test``.

    Raises:
        UserError: If a data loader, a path or ``metainfo`` has the wrong type.
    """
    for split in splits:
        loader = cfg.get(f"{split}_dataloader")
        if loader is None or cfg.get(f"{split}_cfg") is None:
            continue
        if not isinstance(loader, Mapping):
            raise UserError(
                f"{split}_dataloader is {loader!r}; give a dict with batch_size and dataset."
            )
        for where, dataset in _unwrapped(loader.get("dataset"), f"{split}_dataloader.dataset"):
            _check_paths(where, dataset)
            yield where, dataset


def _check_paths(where: str, dataset: Mapping[str, Any]) -> None:
    """Refuse paths and ``metainfo`` of wrong types."""
    root, metainfo = dataset.get("data_root"), dataset.get("metainfo")
    if root is not None and not isinstance(root, (str, os.PathLike)):
        raise UserError(f"{where}.data_root is {root!r}; give the path of a folder.")
    if isinstance(dataset.get("ann_file"), (list, tuple)):
        raise UserError(
            f"{where}.ann_file is the list {list(dataset['ann_file'])}; give one file, and join "
            "several data sets with type=ConcatDataset."
        )
    if metainfo is not None and not isinstance(metainfo, Mapping):
        raise UserError(f"{where}.metainfo is {metainfo!r}; give a dict, such as classes=(...).")
    old = next(
        (key for key in metainfo or () if key != "classes" and str(key).lower() == "classes"), None
    )
    if old is not None:
        raise UserError(
            f"{where}.metainfo has the key {old!r}, which is not used; rename it to 'classes'."
        )


def path_below(root: str, path: Any) -> Any:
    """Return a path as the data sets use it: below ``data_root`` unless absolute or a URL."""
    if not isinstance(path, str) or not path or "://" in path or os.path.isabs(path):
        return path or root
    return os.path.join(root, path)


def _unwrapped(dataset: Any, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a data set's config, or those of the data sets that it wraps at any depth."""
    if isinstance(dataset, (list, tuple)):
        for index, item in enumerate(dataset):
            yield from _unwrapped(item, f"{where}.{index}")
    elif isinstance(dataset, dict):
        wrapped = [key for key in ("dataset", "datasets") if key in dataset]
        if not wrapped:
            yield where, dataset
            return
        check_whole(dataset, where, "times", 1)
        if "datasets" in dataset and not dataset["datasets"]:
            raise UserError(f"{where}.datasets is empty; give one data set or more.")
        for key in wrapped:
            yield from _unwrapped(dataset[key], f"{where}.{key}")


def _kind(config: Mapping[str, Any], scope: str) -> type | None:
    kind = config.get("type")
    if isinstance(kind, str):
        with DATASETS.switch_scope_and_registry(scope) as registry:
            kind = registry.get(kind)
    return kind if isinstance(kind, type) else None


def _names_in(path: str) -> list[str]:
    """Read a file with one class name per line, as mmengine does.

    Raises:
        UserError: If it is not UTF-8 text, or if a name is empty or has spaces around it.
    """
    names = read_lines_for_others(path, UserError)
    odd = next((line for line, name in enumerate(names, 1) if not name or name != name.strip()), 0)
    if odd:
        raise UserError(
            f"{path}, line {odd}: the class name is {names[odd - 1]!r}; remove spaces and tabs "
            "around names, and lines without a name."
        )
    return names
