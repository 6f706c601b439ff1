"""Records of a detector's necks and heads, one for each family.

A record describes a part as steps over stored maps (:mod:`mmvitaccel.core.eventful.maps.steps`).
Its functions receive the host's own module; nothing of the host is copied or imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from mmvitaccel.adapters.base import class_name, host_class, named_base

if TYPE_CHECKING:
    from mmvitaccel.core.eventful.maps.sheets import Sheet, Sheets

    Levels = Callable[[Sheets, Sequence[Sheet]], list[Sheet]]
    Outputs = Callable[[Sheets, Sequence[Sheet]], tuple[list[Tensor], ...]]


@dataclass(frozen=True)
class NeckAdapter:
    """One family of necks.

    Attributes:
        name: Name of the family in messages.
        classes: ``module.Class`` names; a subclass matches as long as it keeps the ``forward``.
        inputs: From the neck's inputs to the maps (B, C, H, W) that it reads, fine to coarse.
        levels: Called once per frame; returns a function from a stream's sheets and its stored
            input maps to the levels.
        bypassed: Submodules, by dotted name, that the steps do not call.
        refuse: Reason why this neck is not supported, or None.
        border: Border of the maps, see :class:`~mmvitaccel.core.eventful.maps.sheets.Sheet`.
        methods: Methods that a subclass must not override.
    """

    name: str
    classes: tuple[str, ...]
    inputs: Callable[[nn.Module, Any], list[Tensor]]
    levels: Callable[[nn.Module], Levels]
    bypassed: Callable[[nn.Module], Iterable[str]]
    refuse: Callable[[nn.Module], str | None] = field(default=lambda neck: None)
    border: Callable[[nn.Module], int] = field(default=lambda neck: 0)
    methods: tuple[str, ...] = ("forward",)


@dataclass(frozen=True)
class HeadAdapter:
    """One family of heads over maps.

    Attributes:
        name: Name of the family in messages.
        classes: ``module.Class`` names; a subclass matches as long as it keeps the ``methods``.
        outputs: Called once per frame; returns a function from a stream's sheets and the levels to
            the outputs of the head's ``forward``, lists with a map (B, C, h, w) for each level.
        bypassed: Submodules, by dotted name, that the steps do not call.
        refuse: Reason why this head is not supported, or None.
        methods: Methods that a subclass must not override.
        decoding: The methods that decode boxes, of a batch and of one of its images, whose
            ``mlvl_priors`` are moved where a camera is followed; a subclass then must not override
            them either.
    """

    name: str
    classes: tuple[str, ...]
    outputs: Callable[[nn.Module], Outputs]
    bypassed: Callable[[nn.Module], Iterable[str]]
    refuse: Callable[[nn.Module], str | None] = field(default=lambda head: None)
    methods: tuple[str, ...] = ("forward", "forward_single")
    decoding: tuple[str, ...] = ("predict_by_feat", "_predict_by_feat_single")


@dataclass(frozen=True)
class RoIAdapter:
    """One family of heads over proposals.

    Attributes:
        name: Name of the family in messages.
        classes: ``module.Class`` names; a subclass matches as long as it keeps the ``methods``.
        steps: Methods that compute proposals independently, each with the names of its positional
            arguments, ``x`` (levels) and ``rois`` (N, 5; the image, then the box) among them, and
            the names of those of its results (N, ...) that are read afterwards.
        extractor: ``(head, method, stage)`` to the module that samples the levels.
        samplers: The layers by which these sample, called with a level (B, C, H, W) and boxes
            (K, 5); with the attributes of mmcv's RoIAlign.
        refuse: Reason why this head is not supported, or None.
        methods: Methods that a subclass must not override.
    """

    name: str
    classes: tuple[str, ...]
    steps: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]
    extractor: Callable[[nn.Module, str, int], nn.Module]
    samplers: Callable[[nn.Module], list[nn.Module]]
    refuse: Callable[[nn.Module], str | None]
    methods: tuple[str, ...]


def overridden(module: nn.Module, base: type, methods: Iterable[str]) -> str | None:
    """Reason if a part overrides one of the methods of ``base``, else None."""
    for method in methods:
        if getattr(host_class(module), method) is not getattr(base, method):
            return (
                f"{class_name(module)} overrides the {method} of {base.__name__}, so its "
                f"computation is unknown"
            )
    return None


def family_of(module: nn.Module, adapters: Sequence[Any]) -> tuple[Any | None, str]:
    """The record among ``adapters`` for a part, or the reason why there is none."""
    for adapter in adapters:
        base = named_base(module, adapter.classes)
        if base is None:
            continue
        changed = overridden(module, base, adapter.methods)
        if changed is not None:
            return None, changed
        reason = adapter.refuse(module)
        return (adapter, "") if reason is None else (None, f"{class_name(module)}: {reason}")
    known = ", ".join(name for adapter in adapters for name in adapter.classes)
    return None, f"{class_name(module)} is not of a supported family ({known})"
