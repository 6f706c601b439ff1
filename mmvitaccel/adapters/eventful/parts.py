"""The parts of a detector, and which of them can be eventful."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from torch import nn

from mmvitaccel.adapters.base import class_name
from mmvitaccel.adapters.hosts.find import transformers_in
from mmvitaccel.adapters.hosts.parts import HEADS, HEADS_HELD, NECKS, ROI_HEADS
from mmvitaccel.adapters.parts import family_of
from mmvitaccel.arguments import sequence

#: Names of the parts, in the order in which they run.
PARTS = ("backbone", "neck", "rpn_head", "bbox_head", "roi_head")
OVER_MAPS = ("rpn_head", "bbox_head")
OF_HEADS = (*OVER_MAPS, "roi_head")
# Supported ways to handle a GroupNorm over a head's maps, other than refusing it.
GROUP_NORMS = ("held",)


def detector_in(model: nn.Module) -> nn.Module:
    """The detector itself, or that inside a tracker or a wrapper."""
    for name in ("module", "detector"):
        inner = getattr(model, name, None)
        model = inner if isinstance(inner, nn.Module) else model
    return model


def records_of(part: str, group_norm: str | None = None) -> Sequence[Any]:
    """Records for a part after the backbone."""
    if part in OVER_MAPS:
        return HEADS if group_norm is None else HEADS_HELD
    return dict(neck=NECKS, roi_head=ROI_HEADS)[part]


def why_not(detector: nn.Module, part: str, group_norm: str | None = None) -> str | None:
    """Reason why a part of a detector cannot be eventful, or None."""
    module = getattr(detector, part)
    if part == "backbone":
        found = transformers_in(module)
        if len(found) == 1:
            return None
        return (
            f"{class_name(module)} holds {len(found) or 'no'} supported vision transformer"
            f"{'s' if found else ''}, and other backbones stay dense"
        )
    return family_of(module, records_of(part, group_norm))[1] or None


def parts_of(
    detector: nn.Module, parts: str | Sequence[str], group_norm: str | None = None
) -> tuple[str, ...]:
    """The parts to make eventful, in order of execution.

    Args:
        detector: The detector.
        parts: ``all`` for all supported parts, with a warning about the others; or names.
        group_norm: Handling of a GroupNorm over a head's maps; None refuses it.

    Raises:
        ValueError: A name is unknown, missing in the detector or not supported; or no part is
            supported.
    """
    here = [n for n in PARTS if isinstance(getattr(detector, n, None), nn.Module)]
    name = class_name(detector)
    if parts == "all":
        reasons = {part: why_not(detector, part, group_norm) for part in here}
        served = tuple(part for part, reason in reasons.items() if reason is None)
        said = "; ".join(f"{part}: {reason}" for part, reason in reasons.items() if reason)
        if not served:
            raise ValueError(
                f"Eventful: no part of {name} is supported: {said or 'it has none'}; possible "
                f"parts are "
                f"{', '.join(PARTS)}."
            )
        if said:
            warnings.warn(
                f"Eventful: of {name}, {', '.join(served)} are eventful; dense in every frame: "
                f"{said}.",
                stacklevel=3,
            )
        return served
    why = "give 'all' or names of parts"
    asked = (parts,) if isinstance(parts, str) else sequence("Eventful", "parts", parts, why=why)
    unknown = [part for part in asked if part not in here]
    if unknown:
        raise ValueError(
            f"Eventful: parts={parts!r}: {name} has no {', '.join(map(repr, unknown))}; "
            f"give 'all' or some of its {', '.join(here) or 'none'}."
        )
    reasons = {part: why_not(detector, part, group_norm) for part in here}
    refused = [f"{part}: {reasons[part]}" for part in asked if reasons[part] is not None]
    if refused:
        can = [part for part in here if reasons[part] is None]
        raise ValueError(
            f"Eventful: parts={parts!r} not supported: {'; '.join(refused)}; supported in this "
            f"detector: {', '.join(can) or 'none'}."
        )
    return tuple(part for part in here if part in asked)


def check_group_norm(group_norm: str | None, parts: str | Sequence[str] | None) -> None:
    """Refuse an unknown ``group_norm``, or one without heads.

    Raises:
        ValueError: It is invalid.
    """
    if group_norm is None:
        return
    if group_norm not in GROUP_NORMS:
        raise ValueError(
            f"Eventful: group_norm={group_norm!r} must be None, which refuses heads with GroupNorm,"
            f" or {' or '.join(map(repr, GROUP_NORMS))}."
        )
    if parts is None:
        raise ValueError(
            f"Eventful: group_norm={group_norm!r} applies to a detector's map heads, but parts "
            f"is None, the transformer only; give parts='all' or leave group_norm out."
        )
