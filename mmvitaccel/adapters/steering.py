"""Who sets a method's budget: one at a time, for two would undo each other."""

from __future__ import annotations

import weakref
from typing import Any

from torch import nn

from mmvitaccel.adapters.attach import link
from mmvitaccel.adapters.base import host_class

# The state is noted beside the owner: a method that was put on again is nobody's.
_OWNERS: weakref.WeakKeyDictionary[nn.Module, tuple[weakref.ref, weakref.ref]] = (
    weakref.WeakKeyDictionary()
)


def claim(model: nn.Module, owner: Any) -> None:
    """Let ``owner`` steer the method on ``model``, until it releases it or is gone.

    Args:
        model: The module that the method is on.
        owner: Who steers it; claiming again changes nothing.

    Raises:
        RuntimeError: Somebody else steers it.
    """
    state = link(model).state
    before = _OWNERS.get(model)
    if before is not None:
        other = before[1]()
        if other is not None and other is not owner and before[0]() is state:
            raise RuntimeError(
                f"{type(owner).__name__}: a {type(other).__name__} steers the "
                f"{link(model).method} of this {host_class(model).__name__} already, and the two "
                "would undo each other; keep one of them."
            )
    _OWNERS[model] = (weakref.ref(state), weakref.ref(owner))


def release(model: nn.Module, owner: Any) -> None:
    """Let others steer what ``owner`` has claimed; of what it has not, nothing changes."""
    before = _OWNERS.get(model)
    if before is not None and before[1]() is owner:
        del _OWNERS[model]
