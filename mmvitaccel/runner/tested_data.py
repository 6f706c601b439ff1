"""A config's training data as its test would prepare them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from mmvitaccel.errors import UserError


def training_data(cfg: Config) -> dict[str, Any]:
    """The config of the training set through the test's pipeline, each sample once.

    What repeats, balances or mixes the samples of a data set is left out.

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
    """The data set in its wrappers; of several the first."""
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
