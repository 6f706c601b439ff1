"""Classes and labels of built data sets against the model's heads."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral
from typing import Any

from mmengine.dataset import BaseDataset
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from mmvitaccel.errors import UserError
from mmvitaccel.fit.heads import Head, heads_of
from mmvitaccel.fit.lines.readers import READERS
from mmvitaccel.fit.lists import reading_class
from mmvitaccel.fit.pictures import built_sets
from mmvitaccel.models.wrappers.target import unwrapped

_DETECTION, _ACTION = "BaseDetDataset", "BaseActionDataset"  # of mmdet, of mmaction2


class BuiltDataHook(Hook):
    """Compares classes and labels that only a built data set knows with the model's heads.

    These are the classes of OpenImages, which stand in a file of its own, and the labels of
    mmaction2's poses. A data set is compared once.
    """

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def before_train(self, runner: Runner) -> None:
        """Compare the training set."""
        self._check(runner, runner.train_dataloader, "train_dataloader.dataset")

    def before_val(self, runner: Runner) -> None:
        """Compare the validation set."""
        self._check(runner, runner.val_dataloader, "val_dataloader.dataset")

    def before_test(self, runner: Runner) -> None:
        """Compare the test set."""
        self._check(runner, runner.test_dataloader, "test_dataloader.dataset")

    def _check(self, runner: Runner, loader: Any, where: str) -> None:
        for dataset in built_sets(getattr(loader, "dataset", None)):
            if id(dataset) not in self._seen:
                self._seen.add(id(dataset))
                check_built(runner.model, dataset, where)


def check_built(model: nn.Module, dataset: Any, where: str) -> None:
    """Compare a built data set with the heads of a model.

    Args:
        model: Also inside a wrapper.
        dataset: Of any kind; only those whose classes or labels no config tells are read.
        where: Its dotted key.

    Raises:
        UserError: A head has another number of classes, or a label is none of the head's.
    """
    model = unwrapped(model)
    names = [kind.__name__ for kind in type(dataset).__mro__]
    for head in heads_of(model):
        if _DETECTION in names:
            _check_classes(head, dataset, where)
        elif _ACTION in names and reading_class(type(dataset)) not in READERS:
            _check_labels(head, dataset, where)


def _check_classes(head: Head, dataset: BaseDataset, where: str) -> None:
    known = (getattr(dataset, "METAINFO", None) or {}).get("classes")
    classes = dataset.metainfo.get("classes")
    # Those that the class itself or the config names were compared before
    if known or not isinstance(classes, (list, tuple)) or len(classes) == head.num_classes:
        return
    raise UserError(
        f"{head.where} is {head.num_classes}, but {where} ({type(dataset).__name__}) has "
        f"{len(classes)} classes in its files; set {head.where}={len(classes)} or give the files "
        "of that number."
    )


def _check_labels(head: Head, dataset: BaseDataset, where: str) -> None:
    training = where.startswith("train")
    labels: dict[int, str] = {}
    for index in range(len(dataset)):
        # The record as it was read; a data set's own way may load more
        record = BaseDataset.get_data_info(dataset, index)
        for label in _whole_labels(record.get("label")):
            labels.setdefault(label, str(record.get("frame_dir") or record.get("filename", index)))
    wrong = [x for x in labels if x >= head.num_classes or (x < 0 and training)]
    if not wrong:
        return
    cure = f"correct it or set {head.where}={max(labels) + 1}"
    if min(labels) == 1 and max(labels) == head.num_classes:
        cure = "labels count from 0, subtract 1 from each"
    raise UserError(
        f"{dataset.ann_file}: the sample {labels[wrong[0]]} has the label {wrong[0]}, but "
        f"{head.where} is {head.num_classes}, for labels from 0 to {head.num_classes - 1}; {cure}."
    )


def _whole_labels(label: Any) -> Iterator[int]:
    """The whole numbers of a label, or of several."""
    for value in label if isinstance(label, (list, tuple)) else (label,):
        if isinstance(value, Integral) and not isinstance(value, bool):
            yield int(value)
