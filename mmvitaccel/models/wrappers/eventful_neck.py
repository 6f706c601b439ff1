"""A feature pyramid of an OpenMMLab config that computes what changed since the frame before."""

from __future__ import annotations

from torch import nn

from mmvitaccel.adapters.eventful.neck import apply_eventful_neck
from mmvitaccel.core.eventful.gates.policy import Policy
from mmvitaccel.models.wrappers.eventful import build_policy
from mmvitaccel.registry import MODELS


@MODELS.register_module()
def EventfulNeck(
    neck: dict, policy: dict | Policy | None = None, max_streams: int = 4
) -> nn.Module:
    """Build a neck whose pixels are recomputed only where its input changed.

    What is returned is the inner neck itself, so that names of parameters and checkpoints are as
    without EventfulNeck. The model that it becomes a part of tells it, from the metainfo of its
    data samples, which video each image is of. The backbone may be eventful or not.

    Args:
        neck: Config of the neck: a :class:`mmvitaccel.SimpleFPN`, an ``EfficientViTFPN`` or mmdet's
            ``FPN``.
        policy: What is let through of the cells of the neck's input: config of one of ``TopK``,
            ``TopFraction``, ``Threshold``, ``Always`` or of a class of your own, or the object. By
            default every cell that differs at all, which gives the plain neck's levels.
        max_streams: Streams remembered at a time.

    Raises:
        ValueError: The neck is not supported, or an argument has no meaning.

    Example:
        >>> cfg = dict(
        ...     type='mmvitaccel.EventfulNeck',
        ...     policy=dict(type='TopK', k=512),
        ...     neck=dict(type='mmvitaccel.SimpleFPN', in_channels=768),
        ... )
    """
    module = MODELS.build(neck)
    apply_eventful_neck(module, build_policy(policy), max_streams=max_streams)
    return module
