"""Strict checks of checkpoints against their model."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from mmvitaccel.conversion.catalogue import recognise
from mmvitaccel.errors import UserError, building
from mmvitaccel.models.weights.checkpoint import read_content
from mmvitaccel.models.weights.fit import load_fitting
from mmvitaccel.models.weights.wrapped import USUAL, Choice, choose_weights
from mmvitaccel.models.wrappers.target import unwrapped
from mmvitaccel.runner.storage import last_checkpoint

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def add_weights_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--weights`` and ``--prefix``, which select the weights in a checkpoint."""
    parser.add_argument(
        "--weights",
        default="",
        metavar="KEY",
        help="the entry of the checkpoint to take, such as ema_state_dict; default: the usual one",
    )
    parser.add_argument(
        "--prefix",
        default="",
        metavar="TEXT",
        help="what precedes the model's names in the checkpoint; default: a wrapper's is found",
    )


def choice_of(args: argparse.Namespace) -> Choice:
    """The :class:`Choice` of ``--weights`` and ``--prefix``."""
    return Choice(args.weights, args.prefix)


def check_checkpoint(
    model: nn.Module, path: str, whole: bool = True, choice: Choice = USUAL
) -> Mapping[str, Any]:
    """Load a checkpoint into a config's model, and check that all weights match.

    Args:
        model: Built from the config; its weights are overwritten.
        path: A file, or a URL (``https://``), which is downloaded and cached.
        whole: Whether all weights must match; with False, one common entry is sufficient, to start
            a training from another model.
        choice: Selects the weights in the file.

    Returns:
        The file's ``meta`` about the training; empty if there is none.

    Raises:
        UserError: The file is missing, unreadable or for another model.
    """
    if "://" not in path and not Path(path).is_file():
        what = "is a folder" if Path(path).is_dir() else "does not exist"
        raise UserError(f"checkpoint {path} {what}; give the path of a .pth file.")
    source, own = f"checkpoint {path}", model.state_dict().keys()
    with building("checkpoint"):
        content = read_content(path)
        weights = choose_weights(content, path, own, choice)
    _warn_of_nan(weights, source, {name for name, _ in model.named_parameters()})
    if whole:
        try:
            load_fitting(model, weights, source, hint=_layout)
        except ValueError as error:
            raise UserError(str(error)) from error
    elif not own & weights.keys():
        what = _layout(weights) or "it is of another model, give one that fits the config"
        raise UserError(
            f"{source} holds none of {type(model).__name__}'s parameters (its first is "
            f"{next(iter(weights), 'none')!r}); {what}."
        )
    meta = content.get("meta") if isinstance(content, Mapping) else None
    return meta if isinstance(meta, Mapping) else {}


def _warn_of_nan(weights: Mapping[str, Tensor], source: str, parameters: Collection[str]) -> None:
    """Warn about weights with NaN or infinity from a diverged training.

    A buffer may hold infinity, such as the mask of an attention.
    """
    lost = [name for name, value in weights.items() if _is_lost(value, infinite=name in parameters)]
    if lost:
        warnings.warn(
            f"{source}: {len(lost)} of its {len(weights)} tensors have NaN or infinity in them, "
            f"first {lost[0]!r}: what the model gives means nothing; take one from before the "
            "training diverged.",
            stacklevel=3,
        )


def _is_lost(value: Tensor, infinite: bool) -> bool:
    """Whether a tensor has NaN in it, or also infinity."""
    # torch cannot check other dtypes, and models do not use them
    plain = value.layout == torch.strided and value.device.type != "meta"
    if not plain or value.dtype not in _FLOATS:
        return False
    return bool((~value.isfinite() if infinite else value.isnan()).any())


@building("config")
def starting_point(cfg: Config) -> str | None:
    """The initial checkpoint of a training of this config, or None.

    Raises:
        UserError: ``load_from`` is no path, or ``resume`` one.
    """
    path, resume = cfg.get("load_from"), cfg.get("resume")
    if path is not None and not isinstance(path, str):
        raise UserError(f"load_from is {path!r}; give the path of a checkpoint, or None.")
    if isinstance(resume, str):
        raise UserError(
            f"resume is the text {resume!r}; give resume=True and load_from={resume!r}, or "
            f"--resume {resume}."
        )
    if path:
        return path
    return last_checkpoint(cfg.work_dir) if cfg.get("resume") else None


class ChosenWeights(Hook):
    """Hook that gives the Runner the weights checked by :func:`check_checkpoint`.

    mmengine only finds its own names, and ignores names that a wrapper has changed.
    """

    priority = "HIGHEST"

    def __init__(self, choice: Choice) -> None:
        self.choice = choice

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Replace ``state_dict``, also in a file without one."""
        if runner._resume and "optimizer" not in checkpoint:
            warnings.warn(
                f"{runner._load_from or 'the last checkpoint'} holds no state of the optimizer: "
                "the training goes on with a new one, without its momentum; save checkpoints with "
                "save_optimizer=True to go on as before.",
                stacklevel=2,
            )
        model = unwrapped(runner.model)
        own, source = model.state_dict().keys(), str(runner._load_from or "the last checkpoint")
        with building("checkpoint"):
            checkpoint["state_dict"] = choose_weights(checkpoint, source, own, self.choice)


def _layout(weights: Mapping[str, Tensor]) -> str | None:
    """Advice for weights of another model, which may only have other names."""
    layout = recognise(weights)
    if layout is None:
        return None
    return (
        f"it is of the released layout {layout.name}, convert it with tools/convert_checkpoint.py"
    )
