"""Checks of optimizer settings: gradient clipping and settings by parameter."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from difflib import get_close_matches

from mmengine.config import Config
from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from mmvitaccel.errors import UserError, closest
from mmvitaccel.registry import type_name

_CLIPPING = {"norm": clip_grad_norm_, "value": clip_grad_value_}
_PARAMWISE = (
    *("custom_keys", "bias_lr_mult", "bias_decay_mult", "norm_decay_mult", "flat_decay_mult"),
    *("dwconv_decay_mult", "dcn_offset_lr_mult", "bypass_duplicate"),
)

_SIMILARITY = 0.8  # of difflib, from which on a key is probably a misspelling


def check_clipping(cfg: Config) -> None:
    """Refuse unknown arguments of ``optim_wrapper.clip_grad``; the first step would fail.

    Raises:
        UserError: If torch's function does not have one of the arguments.
    """
    given = (cfg.get("optim_wrapper") or {}).get("clip_grad")
    called = _CLIPPING.get(given.get("type", "norm")) if isinstance(given, Mapping) else None
    if called is None:
        return
    known = set(inspect.signature(called).parameters) - {"parameters"}
    for key in given:
        if key not in known | {"type", "_scope_"}:
            raise UserError(
                f"optim_wrapper.clip_grad has the argument {key!r}, which torch's "
                f"{called.__name__} does not take; remove or correct it"
                f"{closest(key, known) or '.'}"
            )


def check_paramwise(cfg: Config, model: nn.Module) -> None:
    """Warn of settings in ``paramwise_cfg`` that mmengine's constructor ignores.

    Configs share custom keys that only some models have (``absolute_pos_embed``). A key that
    matches no parameter therefore causes a warning only if it is similar to a parameter's name.

    Args:
        cfg: Config of a training.
        model: Model built from it.
    """
    wrapper = cfg.get("optim_wrapper") or {}
    given = wrapper.get("paramwise_cfg")
    default = DefaultOptimWrapperConstructor.__name__
    if not isinstance(given, Mapping) or wrapper.get("constructor", default) != default:
        return
    # Some stock configs have `_delete` instead of `_delete_`, which is harmless.
    unread = [key for key in given if key not in _PARAMWISE and not key.startswith("_")]
    where = "optim_wrapper.paramwise_cfg"
    if unread:
        warnings.warn(
            f"{where} has the key {unread[0]!r}, which {default} does not use; remove or correct "
            f"it{closest(unread[0], _PARAMWISE) or '.'}",
            stacklevel=2,
        )
    names = [name for name, _ in model.named_parameters()]
    parts = {part for name in names for part in name.split(".")}
    for key in given.get("custom_keys") or {}:
        if any(key in name for name in names):
            continue
        meant = [get_close_matches(part, parts, 1, _SIMILARITY) for part in key.split(".")]
        near = next((found[0] for found in meant if found and found[0] not in key), None)
        if near is not None:
            warnings.warn(
                f"{where}.custom_keys has {key!r}, which is in the name of no parameter of "
                f"{type_name(cfg.model)} and has no effect; did you mean {near!r}?",
                stacklevel=2,
            )
