"""Ownership of a method's budget: one controller at a time, because two would conflict."""

from __future__ import annotations

import weakref
from typing import Any

from torch import nn

from mmvitaccel.adapters.attach import link
from mmvitaccel.adapters.base import host_class

# The state is stored with the owner: a newly attached method has no owner.
_OWNERS: weakref.WeakKeyDictionary[nn.Module, tuple[weakref.ref, weakref.ref]] = (
    weakref.WeakKeyDictionary()
)


def claim(model: nn.Module, owner: Any) -> None:
    """Let ``owner`` control the method on ``model`` until it releases it or is deleted.

    Args:
        model: The module with the method.
        owner: The controller; claiming again has no effect.

    Raises:
        RuntimeError: Another controller owns it.
    """
    state = link(model).state
    before = _OWNERS.get(model)
    if before is not None:
        other = before[1]()
        if other is not None and other is not owner and before[0]() is state:
            raise RuntimeError(
                f"{type(owner).__name__}: a {type(other).__name__} already controls the "
                f"{link(model).method} of this {host_class(model).__name__}, and two controllers "
                f"would conflict; keep one of them."
            )
    _OWNERS[model] = (weakref.ref(state), weakref.ref(owner))


def release(model: nn.Module, owner: Any) -> None:
    """Release what ``owner`` has claimed; otherwise there is no effect."""
    before = _OWNERS.get(model)
    if before is not None and before[1]() is owner:
        del _OWNERS[model]
