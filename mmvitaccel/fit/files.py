"""Checks for missing files of a config, before anything is written."""

from __future__ import annotations

import os
from typing import Any

from mmengine.config import Config
from mmengine.model import PretrainedInit

from mmvitaccel.errors import UserError, building
from mmvitaccel.fit.datasets import dataset_configs, path_below


@building("config")
def check_data(cfg: Config, *splits: str) -> None:
    """Check that annotation files and folders of the data sets in use exist.

    Args:
        cfg: A config.
        *splits: ``train``, ``val``, ``test``: data loaders to check, if the config has them.

    Raises:
        UserError: If a local file or folder is missing.
    """
    for where, dataset in dataset_configs(cfg, *splits):
        _check_dataset(where, dataset)


def check_pretrained(model: Any, where: str = "model") -> None:
    """Check that local checkpoints of ``init_cfg`` exist, at any depth of a model's config.

    Args:
        model: Config of a model, or any value in it.
        where: Dotted key of the value, for messages.

    Raises:
        UserError: If a checkpoint is missing.
    """
    if isinstance(model, dict):
        path = model.get("checkpoint")
        if model.get("type") in ("Pretrained", PretrainedInit) and _missing(path):
            raise UserError(
                f"{where}.checkpoint {path} does not exist; correct the path or remove the "
                "init_cfg."
            )
        for key, value in model.items():
            check_pretrained(value, f"{where}.{key}")
    elif isinstance(model, (list, tuple)):
        for index, value in enumerate(model):
            check_pretrained(value, f"{where}.{index}")


def _check_dataset(where: str, dataset: dict[str, Any]) -> None:
    root = dataset.get("data_root") or ""
    if _missing(root):
        raise UserError(
            f"{where}: the folder {root} does not exist; link the data set there or set "
            f"{where}.data_root."
        )
    annotations = path_below(root, dataset.get("ann_file"))
    if _missing(annotations):
        raise UserError(
            f"{where}: the annotation file {annotations} does not exist; put it there or set "
            f"{where}.ann_file."
        )
    prefix = dataset.get("data_prefix")
    for name, folder in prefix.items() if isinstance(prefix, dict) else ():
        folder = path_below(root, folder)
        if _missing(folder):
            raise UserError(
                f"{where}: the folder {folder} does not exist; put the data there or set "
                f"{where}.data_prefix.{name}."
            )


def _missing(path: Any) -> bool:
    """Check whether a local path is missing; False for empty and remote paths."""
    if not isinstance(path, str) or not path or "://" in path or path.startswith("s3:"):
        return False
    return not os.path.exists(path)
