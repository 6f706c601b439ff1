"""Predicts the size of a training's checkpoints before it starts."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import OPTIMIZERS
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from mmvitaccel.registry import type_name

_OF_DEVICES = ("fused", "foreach", "capturable")  # implementation variants with the same state


def checkpoint_bytes(cfg: Config, model: nn.Module) -> int:
    """Size in bytes of a checkpoint: weights, averaged weights and optimizer state.

    Args:
        cfg: Config of a training.
        model: The config's model, which is not changed.
    """
    keeps = _checkpoint_hook(cfg).get("save_optimizer", True)
    return _weights_bytes(cfg, model) + (_state_bytes(cfg, model) if keeps else 0)


def best_bytes(cfg: Config, model: nn.Module) -> int:
    """Size in bytes of the best checkpoints, one for each metric that selects them."""
    given = _checkpoint_hook(cfg).get("save_best")
    count = len(given) if isinstance(given, (list, tuple)) else bool(given)
    return count * _weights_bytes(cfg, model)


def _weights_bytes(cfg: Config, model: nn.Module) -> int:
    return sum(map(_bytes, model.state_dict().values())) * (1 + _averages(cfg))


def _checkpoint_hook(cfg: Config) -> Mapping[str, Any]:
    return (cfg.get("default_hooks") or {}).get("checkpoint") or {}


def _averages(cfg: Config) -> int:
    """Number of hooks that save averaged weights in addition to the model's."""
    hooks = [*(cfg.get("custom_hooks") or ()), *(cfg.get("default_hooks") or {}).values()]
    # Hooks of other packages derive from mmengine's and contain its name
    return sum("EMAHook" in type_name(hook) for hook in hooks if isinstance(hook, Mapping))


def _state_bytes(cfg: Config, model: nn.Module) -> int:
    """Size of the optimizer state, measured by one step on tensors without memory.

    Optimizers that do not support this count as 0.
    """
    optimizer = next(_optimizers(cfg.get("optim_wrapper")), None)
    params = [
        nn.Parameter(torch.empty_like(p, device="meta")) for p in model.parameters()
        if p.requires_grad
    ]  # fmt: skip
    if optimizer is None or not params:
        return 0
    options = {key: value for key, value in optimizer.items() if key not in _OF_DEVICES}
    for param in params:
        param.grad = torch.empty_like(param)
    try:
        built = OPTIMIZERS.build(dict(copy.deepcopy(options), params=params))
        built.step()
    except Exception:
        # An optimizer with other needs is not a mistake; real mistakes are reported later
        return 0
    kept, _ = tree_flatten([built.state[param] for param in params])
    return sum(_bytes(value) for value in kept if isinstance(value, Tensor))


def _optimizers(wrapper: Any) -> Iterator[Mapping[str, Any]]:
    """The optimizers of a wrapper, or of several by name."""
    if isinstance(wrapper, Mapping):
        if isinstance(wrapper.get("optimizer"), Mapping):
            yield wrapper["optimizer"]
        else:
            for inner in wrapper.values():
                yield from _optimizers(inner)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
