"""Which records serve the necks and heads of detectors."""

from __future__ import annotations

from torch import nn

from mmvitaccel.adapters.base import class_name, named_base
from mmvitaccel.adapters.hosts.mmdet import dense_heads, fpn, roi_heads
from mmvitaccel.adapters.hosts.own import necks as own_necks
from mmvitaccel.adapters.parts import HeadAdapter, NeckAdapter, RoIAdapter, family_of

NECKS: tuple[NeckAdapter, ...] = (*own_necks.NECKS, *fpn.NECKS)
HEADS: tuple[HeadAdapter, ...] = (*dense_heads.HEADS,)
# The same, which serve a GroupNorm by statistics of the last whole frame.
HEADS_HELD: tuple[HeadAdapter, ...] = (*dense_heads.HEADS_HELD,)
ROI_HEADS: tuple[RoIAdapter, ...] = (*roi_heads.ROI_HEADS,)


def find_neck(model: nn.Module) -> tuple[nn.Module, NeckAdapter]:
    """The one supported neck that ``model`` is or holds, and its record.

    Raises:
        ValueError: There is none or several, or the one that is there is refused.
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
