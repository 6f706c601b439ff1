"""Attaches a method to a model of another package, and detaches it completely.

The class of an *instance* is replaced by a subclass; the original class is never changed. Parameter
names, parameter objects and ``isinstance`` do not change, deep copies (EMA) keep the method, and
:func:`detach` restores the class of every instance. Compatible methods can be on one module
together, attached and detached in any order.
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
from mmvitaccel.core.locks import Lock
from mmvitaccel.core.torch_modes import is_compiling

_LINKS = "_mmvitaccel_links"
# Pairs of compatible methods: the first is inside the second, whose overrides call it as their
# host.
_INSIDE = (("ToMe", "RLT"), ("ToMe", "Eventful"))

_EXTENDING = Lock()

Override = Callable[..., Any]


class Swap(NamedTuple):
    """Overrides for one module.

    Attributes:
        module: The host's module.
        overrides: Method name to a module-level function ``f(module, host, *args, **kwargs)``,
            where ``host`` is the module's own bound method, including inner methods.
        info: Data for the overrides, available as ``link(module, method).info``.
    """

    module: nn.Module
    overrides: Mapping[str, Override]
    info: Any = None


@dataclass
class Link:
    """Link from an attached module to its method.

    Attributes:
        method: Name of the method for messages.
        state: State shared by all modules of one attachment.
        info: The ``info`` of this module's :class:`Swap`.
        members: All changed modules; only on the root.
        overrides: The ``overrides`` of the :class:`Swap`, sorted by name.
    """

    method: str
    state: Any
    info: Any
    members: tuple[nn.Module, ...] = ()
    overrides: tuple[tuple[str, Override], ...] = ()


def links(module: nn.Module) -> tuple[Link, ...]:
    """Links of all methods on exactly this module, innermost first."""
    return tuple(getattr(module, _LINKS, {}).values())


def link(module: nn.Module, method: str | None = None) -> Link | None:
    """Link of a method on exactly this module, or None; by default that of the outermost method."""
    if method is not None:
        return getattr(module, _LINKS, {}).get(method)
    found = links(module)
    return found[-1] if found else None


def is_attached(module: nn.Module, method: str | None = None) -> bool:
    """Whether exactly this module has a method (the named one, if given)."""
    return link(module, method) is not None


def is_root(module: nn.Module) -> bool:
    """Whether a method was attached with this module as its root."""
    return any(found.members for found in links(module))


def attach(root: nn.Module, method: str, swaps: Sequence[Swap], state: Any) -> None:
    """Attach ``method`` to ``root``; all checks are done before the first change.

    Args:
        root: The model to which the method belongs; need not be among the swaps.
        method: Name of the method; an existing one on ``root`` is replaced.
        swaps: The modules to change.
        state: Shared state, available as ``link(module, method).state``.

    Raises:
        RuntimeError: A module has an incompatible method, or the same one from another root.
        TypeError: A module's class cannot be replaced (scripted, or with a patched method).
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


def extend(root: nn.Module, method: str, swaps: Sequence[Swap]) -> None:
    """Add modules without the method to its attachment to ``root``."""
    own = link(root, method)
    with _EXTENDING:
        new = [swap for swap in swaps if not is_attached(swap.module, method)]
        for swap in new:
            overrides = tuple(sorted(swap.overrides.items()))
            added = Link(method, own.state, swap.info, overrides=overrides)
            _set_links(swap.module, _placed(added, links(swap.module)))
        own.members += tuple(swap.module for swap in new)


def detach(root: nn.Module, method: str) -> None:
    """Detach a method from all modules of ``root``'s attachment.

    Raises:
        RuntimeError: ``method`` is not attached to ``root``, or other code has replaced the class
            of a module since.
    """
    own = link(root, method)
    if own is None or not own.members:
        raise RuntimeError(f"{method} is not attached to this {host_class(root).__name__}.")
    for module in own.members:
        if "host_class" not in vars(type(module)):
            raise RuntimeError(
                f"{method} cannot be removed: the class of a {host_class(module).__name__} was "
                f"replaced by {type(module).__name__} since it was attached; undo that first."
            )
    for module in own.members:
        _set_links(module, [found for found in links(module) if found.method != method])


def check_attached(root: nn.Module, found: Link) -> None:
    """Check at the end of a pass that the method is still attached as it was at the start.

    Raises:
        RuntimeError: It was removed or attached again during the pass, by a hook or another thread,
            so that some blocks ran with it and others without.
    """
    if not is_compiling() and link(root, found.method) is not found:
        raise _changed_during(root, found.method)


def _changed_during(module: nn.Module, method: str) -> RuntimeError:
    return RuntimeError(
        f"{method} was removed from {host_class(module).__name__} or attached again during a "
        "forward pass, by a hook or another thread: the output would be partly with and partly "
        "without it; do it before or after."
    )


def detach_all(root: nn.Module) -> None:
    """Detach all methods with ``root`` as their root."""
    for found in links(root):
        if found.members:
            detach(root, found.method)


def _placed(new: Link, present: Sequence[Link]) -> list[Link]:
    """All links, innermost first."""
    inside = [found for found in present if (found.method, new.method) in _INSIDE]
    return [*inside, new, *(found for found in present if found not in inside)]


def _set_links(module: nn.Module, found: Sequence[Link]) -> None:
    """Set the methods of a module to exactly these."""
    host = host_class(module)
    if found:
        module.__dict__[_LINKS] = {one.method: one for one in found}
        layers = tuple((one.method, one.overrides) for one in found)
        module.__class__ = _subclass(host, layers)
    else:
        module.__class__ = host
        del module.__dict__[_LINKS]


def _check(swap: Swap, method: str, ours: set[int]) -> None:
    """Refuse a module to which the method cannot be attached."""
    module, name = swap.module, host_class(swap.module).__name__
    for found in links(module):
        own = found.method == method and id(module) in ours
        pair = (found.method, method)
        if not own and pair not in _INSIDE and pair[::-1] not in _INSIDE:
            raise RuntimeError(
                f"{method} cannot be attached to {name}: {found.method} is already attached and "
                f"both would replace the same forward; remove {found.method} first."
            )
    if isinstance(module, torch.jit.ScriptModule):
        raise TypeError(
            f"{method} cannot be attached to {name}: it is scripted; give the eager model."
        )
    for attribute in swap.overrides:
        if attribute in module.__dict__:
            raise TypeError(
                f"{method} cannot be attached to {name}: its {attribute!r} was replaced on the "
                "instance; restore it first."
            )
        if not hasattr(module, attribute):
            raise TypeError(
                f"{method} cannot be attached to {name}: it has no method {attribute!r}."
            )


@functools.cache
def _subclass(host: type, layers: tuple[tuple[str, tuple[tuple[str, Override], ...]], ...]) -> type:
    """A subclass of ``host`` whose named methods call the overrides of each layer in turn.

    Cached, so that modules of one class share a class. It keeps the host's names, which
    transformers uses to find recordable outputs and writes into saved configs.
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
    for method, overrides in layers:
        for name, override in overrides:
            body[name] = _method(body.get(name, getattr(host, name)), override, method)
    return type(host.__name__, (host,), body)


def _method(original: Callable[..., Any], override: Override, method: str) -> Callable[..., Any]:
    @functools.wraps(original)
    def call(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        def host(*host_args: Any, **host_kwargs: Any) -> Any:
            return original(self, *host_args, **host_kwargs)

        if link(self, method) is None:  # since this function was looked up
            raise _changed_during(self, method)
        return override(self, host, *args, **kwargs)

    return call


def _deepcopy(self: nn.Module, memo: dict[int, Any]) -> nn.Module:
    # The class exists only in this process, so copy cannot use pickling
    new = type(self).__new__(type(self))
    memo[id(self)] = new
    new.__dict__ = copy.deepcopy(self.__dict__, memo)
    return new


def _refuse_scripting(self: nn.Module) -> Any:
    """Called by ``torch.jit.script`` before it reads the module."""
    found = _together(found.method for found in links(self))
    raise RuntimeError(
        f"A {host_class(self).__name__} with {found} on it cannot be scripted: its steps are "
        f"computed in Python; remove the method first."
    )


def _refuse_pickling(self: nn.Module, protocol: int) -> Any:
    found = _together(found.method for found in links(self))
    raise RuntimeError(
        f"A {host_class(self).__name__} with {found} on it cannot be pickled: save "
        "its state_dict, copy it by copy.deepcopy, or remove the method first."
    )


def _together(methods: Iterable[str]) -> str:
    return " and ".join(methods)
