"""Fast vision transformers for OpenMMLab: EfficientViT, ToMe and Eventful Transformers.

Importing the package applies the compatibility patches for the installed OpenMMLab stack
(:mod:`mmvitaccel.compat`) and imports nothing else. Registered types are imported when a config
names them, and the names below on first access.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from mmvitaccel.compat import apply as _apply_patches
from mmvitaccel.version import __version__

_apply_patches()

_HOME = {
    "apply_eventful": "mmvitaccel.adapters.eventful.apply",
    "apply_eventful_neck": "mmvitaccel.adapters.eventful.neck",
    "apply_rlt": "mmvitaccel.adapters.rlt.apply",
    "apply_tome": "mmvitaccel.adapters.tome.apply",
    "register_matching": "mmvitaccel.core.tome.matchings",
    "Always": "mmvitaccel.core.eventful.gates.policy",
    "Budget": "mmvitaccel.budget.budget",
    "BudgetHook": "mmvitaccel.hooks.budget_hook",
    "CompiledEfficientViT": "mmvitaccel.models.efficientvit.compiled",
    "EfficientViT": "mmvitaccel.models.efficientvit.backbone",
    "EfficientViTFPN": "mmvitaccel.models.efficientvit.fpn",
    "Every": "mmvitaccel.core.eventful.gates.refresh",
    "LastObjects": "mmvitaccel.core.eventful.gates.importance",
    "OnChange": "mmvitaccel.core.eventful.gates.refresh",
    "OnRequest": "mmvitaccel.core.eventful.gates.refresh",
    "RandomBudgetHook": "mmvitaccel.hooks.random_budget_hook",
    "RandomTokens": "mmvitaccel.core.eventful.gates.random_tokens",
    "ReceivedAttention": "mmvitaccel.core.eventful.gates.importance",
    "RunningObjects": "mmvitaccel.core.eventful.gates.importance",
    "SharedTopK": "mmvitaccel.core.eventful.gates.shared",
    "SimpleFPN": "mmvitaccel.models.vitdet.simple_fpn",
    "TopFraction": "mmvitaccel.core.eventful.gates.policy",
    "TopK": "mmvitaccel.core.eventful.gates.policy",
    "Translation": "mmvitaccel.core.eventful.motion.translation",
    "Threshold": "mmvitaccel.core.eventful.gates.policy",
    "ViTDet": "mmvitaccel.models.vitdet.backbone",
    "ViViT": "mmvitaccel.models.vivit.backbone",
    "Weighted": "mmvitaccel.core.eventful.gates.weighted",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    """Import a public name on first access."""
    if name not in _HOME:
        raise AttributeError(f"module 'mmvitaccel' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
