"""Methods that a config's hooks attach to a model, also outside a Runner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.config import Config
from mmengine.registry import HOOKS
from torch import nn

from mmvitaccel.adapters.attach import detach_all, is_root
from mmvitaccel.errors import building
from mmvitaccel.models.weights.wrapped import USUAL, Choice
from mmvitaccel.runner.checkpoint import check_checkpoint
from mmvitaccel.runner.session import build_model


def attach_hooks(cfg: Config, model: nn.Module) -> list[Any]:
    """Build the config's hooks that attach to a model, and attach them; returns their handles.

    Such hooks have a method ``attach(model)`` that returns a handle with ``remove()``.
    """
    hooks = [*(cfg.get("default_hooks") or {}).values(), *(cfg.get("custom_hooks") or [])]
    handles = []
    for hook in hooks:
        if isinstance(hook, dict):
            with building("hooks"), HOOKS.switch_scope_and_registry(None) as registry:
                kind = hook["type"]
                kind = registry.get(kind) if isinstance(kind, str) else kind
                # Unknown hooks are built too, which raises the right error.
                if kind is None or hasattr(kind, "attach"):
                    handles.append(registry.build(hook).attach(model))
    return handles


def load_model(cfg: Config, checkpoint: str | None, choice: Choice = USUAL) -> nn.Module:
    """The config's model with a checkpoint's weights and the methods of the config's hooks.

    Args:
        cfg: The config.
        checkpoint: A file; None for random weights.
        choice: Selects the weights in the checkpoint.

    Raises:
        UserError: The model cannot be built, or the checkpoint does not match.
    """
    model = build_model(cfg)
    if checkpoint is not None:
        check_checkpoint(model, checkpoint, choice=choice)
    attach_hooks(cfg, model)
    return model


def take_off(model: nn.Module, handles: Sequence[Any]) -> bool:
    """Remove the methods of hooks and wrappers from a model; returns whether there were any."""
    for handle in reversed(handles):
        handle.remove()
    wrapped = [module for module in model.modules() if is_root(module)]
    for module in wrapped:
        detach_all(module)
    return bool(handles or wrapped)
