"""Putting a method that remembers streams on a module."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from mmvitaccel.adapters.attach import Override, Swap, attach, link
from mmvitaccel.adapters.base import class_name
from mmvitaccel.adapters.bypass import Bypass
from mmvitaccel.adapters.eventful.streams.stream_run import Root, StreamRun


def train(model: nn.Module, host: Any, mode: bool = True) -> nn.Module:
    """The override of ``train``: what was remembered in another mode is forgotten."""
    if mode != model.training:
        link(model).state.store.drop()
    return host(mode)


def called(part: nn.Module, host: Any, *args: Any, **kwargs: Any) -> Any:
    """The override of a call, of a part whose whole forward is the method's.

    Raises:
        RuntimeError: The part's forward was replaced on the instance, so that the method would be
            off.
    """
    if "forward" in part.__dict__ and not part.training:
        link(part).info.bypass.check()
    return host(*args, **kwargs)


def attach_run(root: nn.Module, method: str, swaps: list[Swap], state: StreamRun) -> None:
    """Put a method that remembers streams on a module, in place of itself if it is there already.

    Args:
        root: The module.
        method: Name of the method.
        swaps: What changes, the root's part first.
        state: What its parts share.
    """
    before = link(root, method)
    attach(root, method, swaps, state)
    if before is not None:
        warnings.warn(
            f"{method} was on this {class_name(root)} with {before.state.policy!r} and is "
            f"replaced by {state.policy!r}.",
            stacklevel=3,
        )
        before.state.unfollow()


def attach_part(
    module: nn.Module,
    method: str,
    overrides: Mapping[str, Override],
    state: StreamRun,
    bypassed: Iterable[str],
    adapter: Any,
    swaps: Sequence[Swap] = (),
) -> None:
    """Put a method that remembers streams on a neck or a head, and on modules within it.

    Args:
        module: A neck or a head.
        method: Name of the method.
        overrides: As in :class:`~mmvitaccel.adapters.attach.Swap`.
        state: What is remembered.
        bypassed: Dotted names of the submodules that are not called.
        adapter: The module's record.
        swaps: Of modules within it.
    """
    bypass = Bypass(method, module, [(module, bypassed)], _itself, gradients=False)
    bypass.check()
    swap = Swap(module, {**overrides, "train": train}, Root(bypass, adapter))
    attach_run(module, method, [swap, *swaps], state)


def _itself(module: nn.Module) -> list[nn.Module]:
    return [module]
