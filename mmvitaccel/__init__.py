"""Fast vision transformers for OpenMMLab: EfficientViT, ToMe and Eventful Transformers.

Importing the package applies compatibility patches to the installed stack
(:mod:`mmvitaccel.compat`) and loads nothing else: what is registered under the scope ``mmvitaccel``
is imported when a config names it, and the names below when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from mmvitaccel.compat import apply as _close_stack_gaps
from mmvitaccel.version import __version__

_close_stack_gaps()

_HOME = {
    "apply_eventful": "mmvitaccel.adapters.eventful.apply",
    "apply_eventful_neck": "mmvitaccel.adapters.eventful.neck",
    "apply_tome": "mmvitaccel.adapters.tome.apply",
    "Always": "mmvitaccel.core.eventful.gates.policy",
    "CompiledEfficientViT": "mmvitaccel.models.efficientvit.compiled",
    "EfficientViT": "mmvitaccel.models.efficientvit.backbone",
    "EfficientViTFPN": "mmvitaccel.models.efficientvit.fpn",
    "SimpleFPN": "mmvitaccel.models.vitdet.simple_fpn",
    "TopFraction": "mmvitaccel.core.eventful.gates.policy",
    "TopK": "mmvitaccel.core.eventful.gates.policy",
    "Threshold": "mmvitaccel.core.eventful.gates.policy",
    "ViTDet": "mmvitaccel.models.vitdet.backbone",
    "ViViT": "mmvitaccel.models.vivit.backbone",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module 'mmvitaccel' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
