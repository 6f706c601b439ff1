"""Modules that a method computes without calling them: what hangs on them would never run.

A method calls most of a block's submodules, and hooks on those work. Of a few, such as the
attention module around its linear layers, it does the work itself. A hook on one of them, or a
``forward`` of its own, is refused: when the method is put on, and at the start of every pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import nn

from mmvitaccel.adapters.base import BlockSpec, class_name

_HOOKS = {
    "_forward_hooks": "a forward hook",
    "_forward_pre_hooks": "a forward pre-hook",
    "_backward_hooks": "a backward hook",
    "_backward_pre_hooks": "a backward pre-hook",
}
# reason: torch.compiler got it in torch 2.3
_is_compiling = getattr(torch.compiler, "is_compiling", None) or torch._dynamo.is_compiling


class _Bypassed(NamedTuple):
    """A module that is not called, and where it lies."""

    path: str
    parent: nn.Module
    name: str
    module: nn.Module
    forward: Callable


class Bypass:
    """The bypassed modules of one attachment.

    Args:
        method: Name of the method, as in messages.
        model: The module that the method is on, from which paths are told.
        parts: The modules whose ``forward`` the method overrides, each with the dotted names of the
            submodules that are not called; names that do not exist are passed over.
    """

    def __init__(
        self, method: str, model: nn.Module, parts: Sequence[tuple[nn.Module, Iterable[str]]]
    ) -> None:
        self.method, self.model = method, model
        self.parts = [part for part, _ in parts]
        self.bypassed = [found for part, names in parts for found in _find(part, names)]

    def check(self) -> None:
        """Refuse what would be dropped.

        Raises:
            RuntimeError: A bypassed module has a hook, a ``forward`` of its own or is another one
                by now, or an overridden ``forward`` was replaced on its instance.
        """
        if _is_compiling():
            return
        for part in self.parts:
            if "forward" in part.__dict__:
                self._refuse(part, "", "its forward was replaced on the instance")
        for path, parent, name, module, forward in self.bypassed:
            part = parent._modules.get(name)
            if part is not module and type(part).forward is not forward:
                self._refuse(parent, name, f"it was replaced by a {class_name(part)}")
            has = part.__dict__
            if (
                has["_forward_hooks"]
                or has["_forward_pre_hooks"]
                or has["_backward_hooks"]
                or has["_backward_pre_hooks"]
            ):
                kinds = [said for hooks, said in _HOOKS.items() if has[hooks]]
                self._refuse(parent, name, f"it has {' and '.join(kinds)}", path)
            if "forward" in has:
                self._refuse(parent, name, "its forward was replaced on the instance", path)
            if type(part).forward is not forward:
                self._refuse(parent, name, f"its class is {class_name(part)} by now", path)

    def _refuse(self, parent: nn.Module, name: str, reason: str, path: str = "") -> None:
        places = {module: place for place, module in self.model.named_modules()}
        where = ".".join(filter(None, (places.get(parent, ""), name))) or path
        raise RuntimeError(
            f"{self.method}: {where!r}: {reason}, and {self.method} computes what it does without "
            "calling it, so that would be dropped; put it on the whole block or on a layer inside "
            f"that is called (a linear layer, a norm, the MLP), or take it or {self.method} off."
        )


def bypass_of_blocks(
    method: str, model: nn.Module, blocks: Sequence[nn.Module], specs: Sequence[BlockSpec]
) -> Bypass:
    """Of a transformer's blocks."""
    return Bypass(method, model, [(b, spec.bypassed) for b, spec in zip(blocks, specs)])


def _find(part: nn.Module, names: Iterable[str]) -> Iterable[_Bypassed]:
    modules = dict(part.named_modules())
    for path in names:
        module = modules.get(path)
        if module is not None:
            above, _, name = path.rpartition(".")
            yield _Bypassed(path, modules[above], name, module, type(module).forward)
