"""Registries of scope ``mmvitaccel``, children of mmengine's own.

A config names what is registered here as ``type='mmvitaccel.X'``. mmengine imports this module
for the scope's sake and then the ``locations`` of the registry that it asks, so that nothing has
to be imported by hand.
"""

from collections.abc import Mapping
from typing import Any

from mmengine.registry import DATA_SAMPLERS as MMENGINE_DATA_SAMPLERS
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import Registry

SCOPE = "mmvitaccel"

MODELS = Registry("model", parent=MMENGINE_MODELS, scope=SCOPE, locations=["mmvitaccel.models"])
HOOKS = Registry("hook", parent=MMENGINE_HOOKS, scope=SCOPE, locations=["mmvitaccel.hooks"])
DATASETS = Registry(
    "dataset", parent=MMENGINE_DATASETS, scope=SCOPE, locations=["mmvitaccel.datasets"]
)
DATA_SAMPLERS = Registry(
    "data sampler",
    parent=MMENGINE_DATA_SAMPLERS,
    scope=SCOPE,
    locations=["mmvitaccel.datasets"],
)
TRANSFORMS = Registry(
    "transform", parent=MMENGINE_TRANSFORMS, scope=SCOPE, locations=["mmvitaccel.datasets"]
)
METRICS = Registry("metric", parent=MMENGINE_METRICS, scope=SCOPE, locations=["mmvitaccel.metrics"])
OPTIM_WRAPPERS = Registry(
    "optim_wrapper",
    parent=MMENGINE_OPTIM_WRAPPERS,
    scope=SCOPE,
    locations=["mmvitaccel.runner.amp"],
)

#: What an eventful gate lets through; a user's own policy is registered here or given as a class.
POLICIES = Registry("policy", scope=SCOPE, locations=["mmvitaccel.models"])

#: How much tokens matter to a weighted policy.
IMPORTANCES = Registry("importance", scope=SCOPE, locations=["mmvitaccel.models"])

#: Which later frames of a stream are computed whole.
REFRESHES = Registry("refresh", scope=SCOPE, locations=["mmvitaccel.models"])

#: How a stream's memory follows a camera that moves.
MOTIONS = Registry("motion", scope=SCOPE, locations=["mmvitaccel.models"])


def type_name(config: Mapping[str, Any]) -> str:
    """The ``type`` of what a config builds, without scope, also where it is the class itself."""
    kind = config.get("type") or ""
    return (
        kind.rpartition(".")[2] if isinstance(kind, str) else getattr(kind, "__name__", repr(kind))
    )
