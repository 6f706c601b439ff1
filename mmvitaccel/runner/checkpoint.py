"""Checkpoints against the model they are for: one that does not fit is refused, not skipped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import find_latest_checkpoint
from torch import nn

from mmvitaccel.compat.checkpoint import safe_load
from mmvitaccel.conversion.catalogue import recognise
from mmvitaccel.errors import UserError, building
from mmvitaccel.models.weights.checkpoint import find_weights


def check_checkpoint(model: nn.Module, path: str, whole: bool = True) -> None:
    """Load a checkpoint into a model of the config, and check that every part found its own.

    OpenMMLab's loader warns of what does not fit and leaves those parameters at random. Here
    the checkpoint has to hold every parameter and buffer of the model, of the same shape, and
    nothing more inside the model's parts; further parts (a head dropped for testing) may be in it.

    Args:
        model: Built from the config; its weights are overwritten.
        path: A file, or a URL, which is left to mmengine.
        whole: False to start a training from a part of another model's weights: then one entry
            that both have is enough.

    Raises:
        UserError: The file is missing, unreadable or for another model.
    """
    if "://" in path:
        return
    if not Path(path).is_file():
        raise UserError(f"checkpoint {path} does not exist; give the path of a .pth file.")
    weights = _weights(path)
    name = type(model).__name__
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    if not shapes.keys() & weights.keys():
        raise UserError(
            f"checkpoint {path} holds none of {name}'s parameters (its first is "
            f"{next(iter(weights), 'none')!r}); {_advice(weights)}."
        )
    if not whole:
        return
    try:
        fits = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise UserError(_mismatch(path, shapes, weights, error)) from error
    missing = [key for key in fits.missing_keys if not key.endswith("num_batches_tracked")]
    if missing:
        raise UserError(
            f"checkpoint {path} lacks {len(missing)} of {name}'s entries, first {missing[0]!r}; "
            f"{_advice(weights)} or correct the config."
        )
    parts = {key.partition(".")[0] for key in shapes}
    surplus = [key for key in fits.unexpected_keys if key.partition(".")[0] in parts]
    if surplus:
        raise UserError(
            f"checkpoint {path} has {len(surplus)} entries that {name} lacks, first "
            f"{surplus[0]!r}; it is of another model, give one that this config trained or "
            "correct the config."
        )


def starting_point(cfg: Config) -> str | None:
    """The checkpoint that a training of this config begins with; None for none."""
    if cfg.get("load_from"):
        return cfg.load_from
    if cfg.get("resume") and Path(cfg.work_dir, "last_checkpoint").is_file():
        return find_latest_checkpoint(cfg.work_dir)
    return None


def _weights(path: str) -> dict[str, torch.Tensor]:
    with building(f"checkpoint {path}"):
        held: Any = safe_load(path, map_location="cpu")
    try:
        return find_weights(held, path)
    except ValueError as error:
        raise UserError(
            f"checkpoint {path} holds no state_dict; give a file that a training run saved."
        ) from error


def _advice(weights: Mapping[str, torch.Tensor]) -> str:
    """What to do with weights of another model: some only have other names."""
    layout = recognise(weights)
    if layout is None:
        return "it is of another model, give one that this config trained"
    return (
        f"it is of the released layout {layout.name}, convert it with tools/convert_checkpoint.py"
    )


def _mismatch(
    path: str,
    shapes: Mapping[str, tuple[int, ...]],
    weights: Mapping[str, torch.Tensor],
    error: RuntimeError,
) -> str:
    """Name the first entry whose shape differs."""
    for key, shape in shapes.items():
        if key in weights and tuple(weights[key].shape) != shape:
            return (
                f"checkpoint {path} does not fit: {key} is {tuple(weights[key].shape)} in it and "
                f"{shape} in the config's model; give a checkpoint of this config or correct "
                "the config."
            )
    return f"checkpoint {path} does not fit: {' '.join(str(error).split())}"
