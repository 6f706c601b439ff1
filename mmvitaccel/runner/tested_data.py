"""A config's training data with the preprocessing of the test."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from mmvitaccel.errors import UserError


def training_data(cfg: Config) -> dict[str, Any]:
    """Config of the training set with the test pipeline, with each sample once.

    Wrappers that repeat, balance or mix samples are removed.

    Raises:
        UserError: The config has no training or no test data.
    """
    for split in ("train", "test"):
        if (cfg.get(f"{split}_dataloader") or {}).get("dataset") is None:
            raise UserError(
                f"the config has no {split}_dataloader; define it, its data are needed here."
            )
    pipeline = _inner(cfg.test_dataloader.dataset).get("pipeline") or []
    return _tested(cfg.train_dataloader.dataset, pipeline)


def _inner(dataset: Mapping[str, Any]) -> Mapping[str, Any]:
    """The data set inside wrappers, or the first of several."""
    while "dataset" in dataset or "datasets" in dataset:
        dataset = dataset["dataset"] if "dataset" in dataset else dataset["datasets"][0]
    return dataset


def _tested(dataset: Mapping[str, Any], pipeline: list[Any]) -> dict[str, Any]:
    if "dataset" in dataset:
        return _tested(dataset["dataset"], pipeline)
    dataset = copy.deepcopy(dataset)
    if "datasets" in dataset:
        dataset["datasets"] = [_tested(own, pipeline) for own in dataset["datasets"]]
    else:
        dataset.update(pipeline=copy.deepcopy(pipeline), test_mode=True)
    return dataset
