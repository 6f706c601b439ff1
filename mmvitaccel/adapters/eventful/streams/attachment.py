"""Attaching a method with streams to a module."""

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
    """The override of ``train``: a change of the mode drops all streams."""
    if mode != model.training:
        link(model).state.store.drop()
    return host(mode)


def called(part: nn.Module, host: Any, *args: Any, **kwargs: Any) -> Any:
    """The override of ``__call__`` of a part whose forward is replaced by the method.

    Raises:
        RuntimeError: The part's forward was replaced on the instance, which would bypass the
            method.
    """
    if "forward" in part.__dict__ and not part.training:
        link(part).info.bypass.check()
    return host(*args, **kwargs)


def attach_run(root: nn.Module, method: str, swaps: list[Swap], state: StreamRun) -> None:
    """Attach a method with streams to a module, replacing an existing one.

    Args:
        root: The module.
        method: Name of the method.
        swaps: The overrides, with the root's first.
        state: State shared by the parts.
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
    """Attach a method with streams to a neck or a head, and to modules inside it.

    Args:
        module: A neck or a head.
        method: Name of the method.
        overrides: See :class:`~mmvitaccel.adapters.attach.Swap`.
        state: State of the method.
        bypassed: Dotted names of the submodules that are not called.
        adapter: The module's record.
        swaps: Overrides for modules inside it.
    """
    bypass = Bypass(method, module, [(module, bypassed)], _itself, gradients=False)
    bypass.check()
    swap = Swap(module, {**overrides, "train": train}, Root(bypass, adapter))
    attach_run(module, method, [swap, *swaps], state)


def _itself(module: nn.Module) -> list[nn.Module]:
    return [module]
