"""The models that contain a module, which know the streams of its images.

A backbone is built before the detector that contains it, and a detector before its tracker; or a
method is attached to a backbone that is already inside both. Torch reports when a module becomes a
submodule, so all containing models are found in both cases.
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
    """Take stream names of ``root``'s method from all models that contain it, now or later.

    Models called with ``data_samples`` provide them.
    """
    _ROOTS.add(root)
    for model in _around(root):
        _follow(root, model)


def _around(module: nn.Module) -> Iterator[nn.Module]:
    """The modules that contain ``module`` at any depth."""
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
        return  # removed meanwhile
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


# Registered once and kept, because such a hook cannot be removed while it runs
register_module_module_registration_hook(_note)
