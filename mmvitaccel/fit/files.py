"""Checks for missing files of a config, before anything is written."""

from __future__ import annotations

import os
from typing import Any

from mmengine.config import Config
from mmengine.model import BaseModule, PretrainedInit
from torch import nn

from mmvitaccel.errors import UserError, building
from mmvitaccel.fit.datasets import dataset_configs, path_below
from mmvitaccel.models.weights.checkpoint import find_weights, read_content


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


def check_pretrained_names(model: nn.Module) -> None:
    """Check that local checkpoints of ``init_cfg`` hold weights of the modules that load them.

    mmengine logs what it did not find, and the training starts from random weights. Modules that
    load in a way of their own are left alone.

    Args:
        model: A built model.

    Raises:
        UserError: A checkpoint has none of a module's names.
    """
    for name, module in model.named_modules():
        if getattr(type(module), "init_weights", None) is not BaseModule.init_weights:
            continue
        given = getattr(module, "init_cfg", None)
        for cfg in given if isinstance(given, (list, tuple)) else [given]:
            if isinstance(cfg, dict) and cfg.get("type") in ("Pretrained", PretrainedInit):
                path = cfg.get("checkpoint")
                if isinstance(path, str) and not cfg.get("prefix") and os.path.isfile(path):
                    _check_names(module, ".".join(filter(None, ("model", name))), path)


def _check_names(module: nn.Module, where: str, path: str) -> None:
    """Compare a module's names with a checkpoint's, without what DistributedDataParallel adds."""
    with building(f"{where}.init_cfg"):
        names = [key.removeprefix("module.") for key in find_weights(read_content(path), path)]
    own = set(module.state_dict())
    if own & set(names):
        return
    parts = [name.split(".") for name in names]
    fronts = {
        ".".join(part[:depth])
        for part in parts
        for depth in range(1, len(part))
        if ".".join(part[depth:]) in own
    }
    front = min(fronts, key=len, default=None)
    cure = (
        f"they are below {front!r}, set {where}.init_cfg.prefix={front}"
        if front
        else "give a checkpoint of this module"
    )
    raise UserError(
        f"{where}.init_cfg.checkpoint {path} has none of {type(module).__name__}'s names (its "
        f"first is {next(iter(names), 'none')!r}), so that it would start from "
        f"random weights; {cure}."
    )


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
        if isinstance(folder, str) and os.path.isfile(folder):
            raise UserError(
                f"{where}: {folder} is a file and not a folder; unpack it if it is an archive, or "
                f"correct {where}.data_prefix.{name}."
            )
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
