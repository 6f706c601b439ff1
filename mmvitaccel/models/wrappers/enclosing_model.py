"""The model that encloses a module with streams: it knows which video each image belongs to.

A config builds a backbone or neck before the detector that it becomes a part of. torch reports
when a module is registered on a parent, which is where the detector is found.
"""

from __future__ import annotations

import weakref

from mmengine.model import BaseModel
from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook

from mmvitaccel.adapters.attach import link
from mmvitaccel.adapters.eventful.stream_run import StreamRun

#: Modules (and their holders) that are not yet a part of a model; deleted ones drop out.
_BUILT_ALONE: weakref.WeakSet[nn.Module] = weakref.WeakSet()


def await_model_around(module: nn.Module) -> None:
    """Let the model that ``module`` becomes a part of name its streams."""
    _BUILT_ALONE.add(module)


def _tell_the_model_around(parent: nn.Module, name: str, child: nn.Module | None) -> None:
    """Called by torch when ``child`` becomes a submodule of ``parent``."""
    if child is None or child not in _BUILT_ALONE:
        return
    _BUILT_ALONE.discard(child)
    links = [found for found in map(link, child.modules()) if found is not None and found.members]
    runs = [found.state for found in links if isinstance(found.state, StreamRun)]
    if not runs:
        return  # detached in the meantime
    if isinstance(parent, BaseModel):
        for run in runs:
            run.follow_metainfo(parent)
    else:
        _BUILT_ALONE.add(parent)


# reason: registered once and kept, since torch forbids to take such a hook off while it runs.
register_module_module_registration_hook(_tell_the_model_around)
