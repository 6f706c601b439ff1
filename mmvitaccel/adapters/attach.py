"""Attach a method to a model of another package, and detach it without a trace.

The *instance* gets a subclass made from its own class; the class itself is never edited. Names
of parameters, parameter objects and ``isinstance`` stay as they were, deep copies (EMA) carry
the method along, and :func:`detach` gives every instance its class back. Methods of which one can
lie around another may be on one module together, put on and taken off in any order.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from mmvitaccel.adapters.base import host_class

_LINKS = "_mmvitaccel_links"
# Pairs of methods that may be on one module: the first lies inside of the second, whose overrides
# call it as their host.
_INSIDE = (("ToMe", "RLT"), ("ToMe", "Eventful"))

Override = Callable[..., Any]


class Swap(NamedTuple):
    """What one module gets.

    Attributes:
        module: The host's module.
        overrides: Method name to a module-level function ``f(module, host, *args, **kwargs)``,
            where ``host`` is the module's own bound method, with what lies inside on it.
        info: What the overrides want to find in ``link(module, method).info``: an index, a record.
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
        overrides: What :class:`Swap` gave, in order of names.
    """

    method: str
    state: Any
    info: Any
    members: tuple[nn.Module, ...] = ()
    overrides: tuple[tuple[str, Override], ...] = ()


def links(module: nn.Module) -> tuple[Link, ...]:
    """The links of all methods on exactly this module, the innermost first."""
    return tuple(getattr(module, _LINKS, {}).values())


def link(module: nn.Module, method: str | None = None) -> Link | None:
    """The link of a method on exactly this module, or None; of the outermost if none is named."""
    if method is not None:
        return getattr(module, _LINKS, {}).get(method)
    found = links(module)
    return found[-1] if found else None


def is_attached(module: nn.Module, method: str | None = None) -> bool:
    """Whether a method (this one, if named) is on exactly this module."""
    return link(module, method) is not None


def is_root(module: nn.Module) -> bool:
    """Whether a method was put on with this module as its root."""
    return any(found.members for found in links(module))


def attach(root: nn.Module, method: str, swaps: Sequence[Swap], state: Any) -> None:
    """Put ``method`` on ``root``: every check comes before the first change.

    Args:
        root: The model to which the method belongs, from which it is detached; it need not be
            among the swaps.
        method: Name of the method; one that is on ``root`` already is replaced.
        swaps: The modules to change.
        state: Shared by all of them, as ``link(module, method).state``.

    Raises:
        RuntimeError: If a module carries a method that this one cannot be together with, or the
            same one from another root.
        TypeError: If a module cannot be given a subclass (scripted, or with a patched method).
    """
    modules = [swap.module for swap in swaps]
    if root not in modules:
        swaps = [Swap(root, {}), *swaps]
        modules = [root, *modules]
    own = link(root, method)
    ours = {id(m) for m in own.members} if own is not None else set()
    for swap in swaps:
        _check(swap, method, ours)
    if ours:
        detach(root, method)
    for swap in swaps:
        members = tuple(modules) if swap.module is root else ()
        overrides = tuple(sorted(swap.overrides.items()))
        new = Link(method, state, swap.info, members, overrides)
        _set_links(swap.module, _placed(new, links(swap.module)))


def detach(root: nn.Module, method: str) -> None:
    """Take a method off every module of ``root``'s attachment; without others, it is as before.

    Raises:
        RuntimeError: If ``method`` is not attached to ``root``.
    """
    own = link(root, method)
    if own is None or not own.members:
        raise RuntimeError(f"{method} is not attached to this {host_class(root).__name__}.")
    for module in own.members:
        _set_links(module, [found for found in links(module) if found.method != method])


def detach_all(root: nn.Module) -> None:
    """Take off every method of which ``root`` is the root."""
    for found in links(root):
        if found.members:
            detach(root, found.method)


def _placed(new: Link, present: Sequence[Link]) -> list[Link]:
    """All links, the innermost first."""
    inside = [found for found in present if (found.method, new.method) in _INSIDE]
    return [*inside, new, *(found for found in present if found not in inside)]


def _set_links(module: nn.Module, found: Sequence[Link]) -> None:
    """Let exactly these methods be on a module."""
    host = host_class(module)
    if found:
        module.__dict__[_LINKS] = {one.method: one for one in found}
        layers = tuple((one.method, one.overrides) for one in found)
        module.__class__ = _subclass(host, layers)
    else:
        module.__class__ = host
        del module.__dict__[_LINKS]


def _check(swap: Swap, method: str, ours: set[int]) -> None:
    """Refuse a module that cannot take the method."""
    module, name = swap.module, host_class(swap.module).__name__
    for found in links(module):
        own = found.method == method and id(module) in ours
        pair = (found.method, method)
        if not own and pair not in _INSIDE and pair[::-1] not in _INSIDE:
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
def _subclass(host: type, layers: tuple[tuple[str, tuple[tuple[str, Override], ...]], ...]) -> type:
    """A subclass of ``host`` whose named methods go through the overrides of each layer in turn.

    Cached, so that equal modules share a class as they did before. It has the host's own names:
    transformers looks up by them what a model may record, and writes them into a saved config.
    """
    body: dict[str, Any] = {
        "__module__": host.__module__,
        "__qualname__": host.__qualname__,
        "__doc__": f"{host.__name__} with {_together(method for method, _ in layers)} on it.",
        "__reduce_ex__": _refuse_pickling,
        "__prepare_scriptable__": _refuse_scripting,
        "host_class": host,
    }
    if "__deepcopy__" not in dir(host):
        body["__deepcopy__"] = _deepcopy
    for _, overrides in layers:
        for name, override in overrides:
            body[name] = _method(body.get(name, getattr(host, name)), override)
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
    found = _together(found.method for found in links(self))
    raise RuntimeError(
        f"A {host_class(self).__name__} with {found} on it cannot be scripted: its steps "
        "are taken apart in Python; remove the method first."
    )


def _refuse_pickling(self: nn.Module, protocol: int) -> Any:
    found = _together(found.method for found in links(self))
    raise RuntimeError(
        f"A {host_class(self).__name__} with {found} on it cannot be pickled: save "
        "its state_dict, or remove the method first."
    )


def _together(methods: Iterable[str]) -> str:
    return " and ".join(methods)
