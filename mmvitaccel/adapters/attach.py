"""Attach a method to a model of another package, and detach it without a trace.

The *instance* gets a subclass made from its own class; the class itself is never edited. Names
of parameters, parameter objects and ``isinstance`` stay as they were, deep copies (EMA) carry
the method along, and :func:`detach` gives every instance its class back.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from mmvitaccel.adapters.base import host_class

_LINK = "_mmvitaccel_link"

Override = Callable[..., Any]


class Swap(NamedTuple):
    """What one module gets.

    Attributes:
        module: The host's module.
        overrides: Method name to a module-level function ``f(module, host, *args, **kwargs)``,
            where ``host`` is the module's own bound method.
        info: What the overrides want to find in ``link(module).info``: an index, a record.
    """

    module: nn.Module
    overrides: Mapping[str, Override]
    info: Any = None


@dataclass
class Link:
    """What an attached module knows of its method.

    Attributes:
        method: Name of the method, as in messages.
        state: The object that all modules of one attachment share.
        info: What :class:`Swap` gave for this module.
        members: All swapped modules, on the root only.
    """

    method: str
    state: Any
    info: Any
    members: tuple[nn.Module, ...] = ()


def link(module: nn.Module) -> Link | None:
    """The link of an attached module, or None."""
    return getattr(module, _LINK, None)


def is_attached(module: nn.Module, method: str | None = None) -> bool:
    """Whether a method (this one, if named) is on exactly this module."""
    found = link(module)
    return found is not None and method in (None, found.method)


def attach(root: nn.Module, method: str, swaps: Sequence[Swap], state: Any) -> None:
    """Put ``method`` on ``root``: every check comes before the first change.

    Args:
        root: The model to which the method belongs, from which it is detached; it need not be
            among the swaps.
        method: Name of the method; one that is on ``root`` already is replaced.
        swaps: The modules to change.
        state: Shared by all of them, as ``link(module).state``.

    Raises:
        RuntimeError: If a module carries another method, or the same one from another root.
        TypeError: If a module cannot be given a subclass (scripted, or with a patched method).
    """
    modules = [swap.module for swap in swaps]
    if root not in modules:
        swaps = [Swap(root, {}), *swaps]
        modules = [root, *modules]
    own = link(root)
    ours = {id(m) for m in own.members} if own is not None and own.method == method else set()
    for swap in swaps:
        _check(swap, method, ours)
    if ours:
        detach(root, method)
    for swap in swaps:
        members = tuple(modules) if swap.module is root else ()
        swap.module.__dict__[_LINK] = Link(method, state, swap.info, members)
        overrides = tuple(sorted(swap.overrides.items()))
        swap.module.__class__ = _subclass(type(swap.module), method, overrides)


def detach(root: nn.Module, method: str) -> None:
    """Give every module of ``root``'s attachment its class back; nothing else was changed.

    Raises:
        RuntimeError: If ``method`` is not attached to ``root``.
    """
    own = link(root)
    if own is None or own.method != method or not own.members:
        raise RuntimeError(f"{method} is not attached to this {host_class(root).__name__}.")
    for module in own.members:
        module.__class__ = host_class(module)
        del module.__dict__[_LINK]


def _check(swap: Swap, method: str, ours: set[int]) -> None:
    """Refuse a module that cannot take the method."""
    module, name = swap.module, host_class(swap.module).__name__
    found = link(module)
    if found is not None and id(module) not in ours:
        raise RuntimeError(
            f"{method} cannot be put on {name}: {found.method} is on it already and both would "
            f"replace the same forward; remove {found.method} first."
        )
    if isinstance(module, torch.jit.ScriptModule):
        raise TypeError(f"{method} cannot be put on {name}: it is scripted; give the eager model.")
    for attribute in swap.overrides:
        if attribute in module.__dict__:
            raise TypeError(
                f"{method} cannot be put on {name}: its {attribute!r} was replaced on the "
                "instance; restore it first."
            )
        if not hasattr(module, attribute):
            raise TypeError(f"{method} cannot be put on {name}: it has no method {attribute!r}.")


@functools.cache
def _subclass(host: type, method: str, overrides: tuple[tuple[str, Override], ...]) -> type:
    """A subclass of ``host`` whose named methods go through the overrides.

    Cached, so that equal modules share a class as they did before. It has the host's own names:
    transformers looks up by them what a model may record, and writes them into a saved config.
    """
    body: dict[str, Any] = {
        "__module__": host.__module__,
        "__qualname__": host.__qualname__,
        "__doc__": f"{host.__name__} with {method} on it.",
        "__reduce_ex__": _refuse_pickling,
        "__prepare_scriptable__": _refuse_scripting,
        "host_class": host,
    }
    if "__deepcopy__" not in dir(host):
        body["__deepcopy__"] = _deepcopy
    for name, override in overrides:
        body[name] = _method(getattr(host, name), override)
    return type(host.__name__, (host,), body)


def _method(original: Callable[..., Any], override: Override) -> Callable[..., Any]:
    @functools.wraps(original)
    def call(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        def host(*host_args: Any, **host_kwargs: Any) -> Any:
            return original(self, *host_args, **host_kwargs)

        return override(self, host, *args, **kwargs)

    return call


def _deepcopy(self: nn.Module, memo: dict[int, Any]) -> nn.Module:
    # reason: the class exists in this process only, so copy's default way, by pickling, is shut
    new = type(self).__new__(type(self))
    memo[id(self)] = new
    new.__dict__ = copy.deepcopy(self.__dict__, memo)
    return new


def _refuse_scripting(self: nn.Module) -> Any:
    """Called by ``torch.jit.script`` before it reads the module."""
    found = link(self)
    raise RuntimeError(
        f"A {host_class(self).__name__} with {found.method} on it cannot be scripted: its steps "
        "are taken apart in Python; remove the method first."
    )


def _refuse_pickling(self: nn.Module, protocol: int) -> Any:
    found = link(self)
    raise RuntimeError(
        f"A {host_class(self).__name__} with {found.method} on it cannot be pickled: save "
        "its state_dict, or remove the method first."
    )
