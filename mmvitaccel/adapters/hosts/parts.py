"""Finds the adapters of the necks and heads of detectors."""

from __future__ import annotations

from torch import nn

from mmvitaccel.adapters.base import class_name, named_base
from mmvitaccel.adapters.hosts.mmdet import dense_heads, fpn, roi_heads
from mmvitaccel.adapters.hosts.own import necks as own_necks
from mmvitaccel.adapters.parts import HeadAdapter, NeckAdapter, RoIAdapter, family_of

NECKS: tuple[NeckAdapter, ...] = (*own_necks.NECKS, *fpn.NECKS)
HEADS: tuple[HeadAdapter, ...] = (*dense_heads.HEADS,)
# The same with support for GroupNorm, by its statistics in the last frame computed completely.
HEADS_HELD: tuple[HeadAdapter, ...] = (*dense_heads.HEADS_HELD,)
ROI_HEADS: tuple[RoIAdapter, ...] = (*roi_heads.ROI_HEADS,)


def find_neck(model: nn.Module) -> tuple[nn.Module, NeckAdapter]:
    """Find the supported neck in a model.

    Args:
        model: A neck, or a model that contains one.

    Returns:
        The neck and its adapter.

    Raises:
        ValueError: There is no supported neck, there are several, or it is refused.
    """
    known = [name for adapter in NECKS for name in adapter.classes]
    found = [module for module in model.modules() if named_base(module, known) is not None]
    if len(found) != 1:
        raise ValueError(
            f"EventfulNeck: {class_name(model)} holds {len(found) or 'no'} supported "
            f"neck{'s: give one' if found else ''}; supported are: {', '.join(known)}."
        )
    adapter, reason = family_of(found[0], NECKS)
    if adapter is None:
        raise ValueError(f"EventfulNeck: {reason}.")
    return found[0], adapter
