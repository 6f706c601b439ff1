"""The models around a module: they know whose images a module that remembers streams is given.

A backbone is built before the detector that it becomes a part of, and that before the tracker
around it; or a method goes on a backbone that is a part of both already. Torch says when a module
becomes a part of another, which is noted, so that either way every model around is met.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator

from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook

from mmvitaccel.adapters.attach import link
from mmvitaccel.adapters.eventful.streams.metainfo import takes_data_samples
from mmvitaccel.adapters.eventful.streams.stream_run import StreamRun

_PARENTS: weakref.WeakKeyDictionary[nn.Module, list[weakref.ref[nn.Module]]] = (
    weakref.WeakKeyDictionary()
)
_ROOTS: weakref.WeakSet[nn.Module] = weakref.WeakSet()


def follow_models_around(root: nn.Module) -> None:
    """Let the streams of ``root``'s method be told by every model that it is or becomes a part of.

    A model that is called with ``data_samples`` tells them.
    """
    _ROOTS.add(root)
    for model in _around(root):
        _follow(root, model)


def _around(module: nn.Module) -> Iterator[nn.Module]:
    """The modules that hold ``module``, however deep."""
    pending, seen = [module], set()
    while pending:
        for reference in _PARENTS.get(pending.pop(), ()):
            parent = reference()
            if parent is not None and id(parent) not in seen:
                seen.add(id(parent))
                pending.append(parent)
                yield parent


def _follow(root: nn.Module, model: nn.Module) -> None:
    found = link(root)
    if found is None or not isinstance(found.state, StreamRun):
        return  # taken off meanwhile
    if takes_data_samples(model):
        found.state.follow_metainfo(model)


def _note(parent: nn.Module, name: str, child: nn.Module | None) -> None:
    """Called by torch when ``child`` becomes a submodule of ``parent``."""
    if child is None:
        return
    alive = [reference for reference in _PARENTS.get(child, ()) if reference() is not None]
    _PARENTS[child] = [*alive, weakref.ref(parent)]
    for root in list(_ROOTS):
        if root is child or any(module is child for module in _around(root)):
            for model in (parent, *_around(parent)):
                _follow(root, model)


# reason: registered once and kept, since torch forbids to take such a hook off while it runs.
register_module_module_registration_hook(_note)
