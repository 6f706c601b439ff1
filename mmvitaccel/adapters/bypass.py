"""Modules that a method computes without calling them, so that their hooks would not run.

A method calls most submodules of a block, and hooks on those work. It replaces a few modules, such
as the attention module around its linear layers. A hook on one of these, a replaced ``forward``, or
a foreign wrapper or subclass raises an error, when the method is attached and at the start of every
pass. So do global hooks, except those of torch and of this package for counting and tracing, and
backward hooks within the blocks of a method whose outputs have no gradients.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.modules import module as torch_module

from mmvitaccel.adapters.base import BlockSpec, ViTAdapter, class_name, host_class
from mmvitaccel.core.torch_modes import is_compiling

_HOOKS = {
    "_forward_hooks": "a forward hook",
    "_forward_pre_hooks": "a forward pre-hook",
    "_backward_hooks": "a backward hook",
    "_backward_pre_hooks": "a backward pre-hook",
}
_GLOBAL_HOOKS = (
    torch_module._global_forward_hooks,
    torch_module._global_forward_pre_hooks,
    torch_module._global_backward_hooks,
    torch_module._global_backward_pre_hooks,
)
# Hooks that record an output only if a call requests it; an adapter's ``asked`` refuses such calls.
_RECORDERS = ("transformers.utils.output_capturing",)
# Packages whose modules hosts use.
_KNOWN = ("mmcv", "mmengine", "timm", "transformers")
_HARMLESS = {"__init__", "extra_repr", "init_weights"}
# torch 2.1 calls a method marked as constant without its object; tested with 2.14
CHECKED_WHEN_COMPILING = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 14)


class _Bypassed(NamedTuple):
    """A bypassed module and its path."""

    path: str
    parent: nn.Module
    name: str
    module: nn.Module
    forward: Callable


class Bypass:
    """The bypassed modules of one attachment.

    Args:
        method: Name of the method for messages.
        model: The module with the method; paths are relative to it.
        parts: The modules whose ``forward`` the method overrides, each with the dotted names of
            bypassed submodules; names that do not exist are ignored.
        parts_of: Returns the current parts of the model.
        gradients: Whether the method's outputs have gradients.

    Raises:
        RuntimeError: The class of a bypassed module is from a foreign package and has its own
            methods.
    """

    def __init__(
        self,
        method: str,
        model: nn.Module,
        parts: Sequence[tuple[nn.Module, Iterable[str]]],
        parts_of: Callable[[nn.Module], Sequence[nn.Module]],
        gradients: bool,
    ) -> None:
        self.method, self.model = method, model
        self.parts = [part for part, _ in parts]
        self.forwards = [host_class(part).forward for part in self.parts]
        found = [(part, *each) for part, names in parts for each in _find(part, names)]
        self.bypassed = [_Bypassed(*each[1:]) for each in found]
        self.parts_of = parts_of
        # These names are used because torch.compile skips guards on names of hooks
        self.watched = [getattr(found.module, kind) for found in self.bypassed for kind in _HOOKS]
        self.inside = () if gradients else [m for part in self.parts for m in part.modules()]
        for part in self.parts:
            if _is_patched(part):
                self._refuse(part, "", f"the forward of its class {class_name(part)} was replaced")
        for part, path, parent, name, module, _ in found:
            if _is_strange(module, part):
                reason = f"its class {class_name(module)} has methods of its own"
                self._refuse(parent, name, reason, path)

    def check(self) -> None:
        """Raise an error for hooks and replacements that would have no effect.

        Raises:
            RuntimeError: A bypassed module has a hook or a replaced ``forward``, or was exchanged;
                an overridden ``forward`` was replaced on its instance; the model's parts have
                changed; or there are global hooks.
        """
        if is_compiling():
            if not CHECKED_WHEN_COMPILING:
                return
            # Values read here are guarded, so that a later hook causes recompilation
            sum([len(hooks) for hooks in (*self.watched, *_GLOBAL_HOOKS)])
            reason = self._found_at_compiling()
            if reason is not None:
                raise RuntimeError(reason)
            return
        self._check_now()

    def _found_at_compiling(self) -> str | None:
        """Problems found outside the graph during compilation."""
        try:
            self._check_now()
        except RuntimeError as error:
            return str(error)
        return None

    # torch.compiler.assume_constant_result sets this too, but takes a second to import
    # dynamo
    _found_at_compiling._dynamo_marked_constant = True

    def _check_now(self) -> None:
        self._check_parts()
        if any(_GLOBAL_HOOKS):
            self._check_global_hooks()
        for part, forward in zip(self.parts, self.forwards):
            if "forward" in part.__dict__ and not wraps_own(part):
                self._refuse(part, "", "its forward was replaced on the instance")
            if host_class(part).forward is not forward:
                self._refuse(part, "", f"the forward of its class {class_name(part)} was replaced")
        for path, parent, name, module, forward in self.bypassed:
            part = parent._modules.get(name)
            if part is None:
                self._refuse(parent, name, "it was removed", path)
            if part is not module and type(part).forward is not forward:
                self._refuse(parent, name, f"it was replaced by a {class_name(part)}")
            has = part.__dict__
            if (
                any(h.__module__ not in _RECORDERS for h in has["_forward_hooks"].values())
                or has["_forward_pre_hooks"]
                or has["_backward_hooks"]
                or has["_backward_pre_hooks"]
            ):
                kinds = [said for hooks, said in _HOOKS.items() if has[hooks]]
                self._refuse(parent, name, f"it has {' and '.join(kinds)}", path)
            if "forward" in has:
                self._refuse(parent, name, "its forward was replaced on the instance", path)
            if type(part).forward is not forward:
                self._refuse(parent, name, f"its class is now {class_name(part)}", path)
        if torch.is_grad_enabled():
            self._check_backward_hooks()

    def _check_parts(self) -> None:
        """Refuse changed parts; a wrapper or the compiled form of a part counts as the part."""
        now = list(self.parts_of(self.model))
        same = len(now) == len(self.parts)
        for part, own in zip(now, self.parts):
            same = same and (part is own or any(inner is own for inner in part.modules()))
        if not same:
            raise RuntimeError(
                f"{self.method}: the {class_name(self.model)} has other blocks than when "
                f"{self.method} was attached ({len(self.parts)} then, {len(now)} now); remove it "
                f"and attach it again."
            )

    def _check_global_hooks(self) -> None:
        for hooks in _GLOBAL_HOOKS:
            for hook in list(hooks.values()):
                origin = str(getattr(hook, "__module__", None))
                if self.bypassed and origin.partition(".")[0] not in ("torch", "mmvitaccel"):
                    raise RuntimeError(
                        f"{self.method}: a global module hook of {origin!r} would not run for "
                        f"{self.bypassed[0].path!r} and others, which {self.method} computes "
                        f"without calling them; remove the hook or {self.method}."
                    )

    def _check_backward_hooks(self) -> None:
        for part in self.inside:
            if part._backward_hooks or part._backward_pre_hooks:
                raise RuntimeError(
                    f"{self.method}: a {class_name(part)} within its blocks has a backward hook, "
                    f"which would never run, because outputs of {self.method} have no gradients; "
                    f"compute gradients without {self.method} (handle.remove())."
                )

    def _refuse(self, parent: nn.Module, name: str, reason: str, path: str = "") -> None:
        places = {module: place for place, module in self.model.named_modules()}
        where = ".".join(filter(None, (places.get(parent, ""), name))) or path or class_name(parent)
        raise RuntimeError(
            f"{self.method}: {where!r}: {reason}, and {self.method} computes this module without "
            f"calling it, so that would have no effect; use the whole block or a layer inside "
            f"that is called (a linear layer, a norm, the MLP), or remove it or {self.method}."
        )


def bypass_of_blocks(
    method: str, model: nn.Module, adapter: ViTAdapter, specs: Sequence[BlockSpec], gradients: bool
) -> Bypass:
    """The :class:`Bypass` of a transformer's blocks.

    Raises:
        ValueError: A block is there twice.
    """
    blocks = list(adapter.blocks(model))
    for index, block in enumerate(blocks):
        first = next(place for place, other in enumerate(blocks) if other is block)
        if first != index:
            raise ValueError(
                f"{method}: blocks {first} and {index} of this {class_name(model)} are one module, "
                "but each needs a state of its own; give the second one its own module, whose "
                "parameters may be those of the first."
            )
    parts = [(block, spec.bypassed) for block, spec in zip(blocks, specs)]
    return Bypass(method, model, parts, adapter.blocks, gradients)


def wraps_own(part: nn.Module, name: str = "forward") -> bool:
    """Whether the instance's method wraps that of its class, like mmengine's checkpointing."""

    def is_own(method: Callable) -> bool:
        return getattr(method, "__func__", None) is getattr(type(part), name)

    return is_own(inspect.unwrap(part.__dict__[name], stop=is_own))


def _is_patched(module: nn.Module) -> bool:
    """Whether the ``forward`` of a module's class is a function of somebody else's."""
    kind = next(kind for kind in host_class(module).__mro__ if "forward" in vars(kind))
    origin = str(getattr(vars(kind)["forward"], "__module__", None)).partition(".")[0]
    return origin not in (*_KNOWN, "torch", "mmvitaccel", kind.__module__.partition(".")[0])


def _is_strange(module: nn.Module, part: nn.Module) -> bool:
    """Whether foreign code defines what a bypassed module does: a wrapper, subclass or patch."""
    if _is_patched(module):
        return True
    known = {*_KNOWN, host_class(part).forward.__module__.partition(".")[0]}
    for kind in host_class(module).__mro__:
        if kind.__module__.partition(".")[0] in known or kind.__module__.startswith("torch.nn."):
            return False
        if any(
            inspect.isfunction(value) for name, value in vars(kind).items() if name not in _HARMLESS
        ):
            return True
    return False


def _find(part: nn.Module, names: Iterable[str]) -> Iterable[_Bypassed]:
    modules = dict(part.named_modules())
    for path in names:
        module = modules.get(path)
        if module is not None:
            above, _, name = path.rpartition(".")
            yield _Bypassed(path, modules[above], name, module, type(module).forward)
