"""A feature pyramid of an OpenMMLab config that recomputes only what changed."""

from __future__ import annotations

from torch import nn

from mmvitaccel.adapters.eventful.neck import apply_eventful_neck
from mmvitaccel.arguments import config
from mmvitaccel.core.eventful.gates.policy import Policy
from mmvitaccel.models.wrappers.eventful import build_policy
from mmvitaccel.registry import MODELS


@MODELS.register_module()
def EventfulNeck(
    neck: dict, policy: dict | Policy | None = None, max_streams: int = 4
) -> nn.Module:
    """Build a neck that recomputes pixels only where its input changed.

    Returns the inner neck itself, so parameter names and checkpoints are the same as without
    EventfulNeck. The model that contains it provides the video of each image from the metainfo of
    its data samples. The backbone may be eventful or dense.

    Args:
        neck: Config of the neck: a :class:`mmvitaccel.SimpleFPN`, an ``EfficientViTFPN`` or mmdet's
            ``FPN``.
        policy: Selects the cells of the neck's input: config of one of ``TopK``, ``TopFraction``,
            ``Threshold``, ``Always`` or of your own class, or the object. By default, every cell
            that differs is selected, which gives the levels of the plain neck.
        max_streams: Maximum number of stored streams.

    Raises:
        ValueError: The neck is not supported, or an argument is invalid.

    Example:
        >>> cfg = dict(
        ...     type='mmvitaccel.EventfulNeck',
        ...     policy=dict(type='TopK', k=512),
        ...     neck=dict(type='mmvitaccel.SimpleFPN', in_channels=768),
        ... )
    """
    module = MODELS.build(config("EventfulNeck", "neck", neck))
    apply_eventful_neck(module, build_policy(policy), max_streams=max_streams)
    return module
