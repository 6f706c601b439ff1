"""What is known of a detector's parts behind its backbone: records, one for each family.

A record takes a part apart into steps over remembered maps
(:mod:`mmvitaccel.core.eventful.maps.steps`). Its functions receive the host's own module; nothing
of the host is copied or imported here.
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
        name: What messages call the family.
        classes: ``module.Class`` names; a subclass matches as long as it keeps the ``forward``.
        inputs: What the neck is given, to the maps (B, C, H, W) that it reads, fine to coarse.
        levels: Called once in a frame; what it returns makes the levels of a stream from the
            stream's sheets and the maps as the gates let them through.
        bypassed: Submodules, by dotted name, that the steps do not call.
        refuse: The reason why this very neck is not supported, or None.
        border: Of the maps, see :class:`~mmvitaccel.core.eventful.maps.sheets.Sheet`.
        methods: What a subclass must not override.
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
        name: What messages call the family.
        classes: ``module.Class`` names; a subclass matches as long as it keeps the ``methods``.
        outputs: Called once in a frame; what it returns makes what the head's ``forward`` returns,
            lists of a map (B, C, h, w) for each level, from a stream's sheets and the levels.
        bypassed: Submodules, by dotted name, that the steps do not call.
        refuse: The reason why this very head is not supported, or None.
        methods: What a subclass must not override.
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
        name: What messages call the family.
        classes: ``module.Class`` names; a subclass matches as long as it keeps the ``methods``.
        steps: Methods that compute proposals independently, each with the names of its positional
            arguments, ``x`` (levels) and ``rois`` (N, 5; the image, then the box) among them, and
            the names of those of its results (N, ...) that are read afterwards.
        extractor: ``(head, method, stage)`` to the module that samples the levels.
        samplers: The layers by which these sample, called with a level (B, C, H, W) and boxes
            (K, 5); with the attributes of mmcv's RoIAlign.
        refuse: The reason why this very head is not supported, or None.
        methods: What a subclass must not override.
    """

    name: str
    classes: tuple[str, ...]
    steps: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]
    extractor: Callable[[nn.Module, str, int], nn.Module]
    samplers: Callable[[nn.Module], list[nn.Module]]
    refuse: Callable[[nn.Module], str | None]
    methods: tuple[str, ...]


def overridden(module: nn.Module, base: type, methods: Iterable[str]) -> str | None:
    """Why what a part computes is not known: it overrides one of the methods of ``base``."""
    for method in methods:
        if getattr(host_class(module), method) is not getattr(base, method):
            return (
                f"{class_name(module)} overrides the {method} of {base.__name__}, so what it "
                "computes is not known"
            )
    return None


def family_of(module: nn.Module, adapters: Sequence[Any]) -> tuple[Any | None, str]:
    """The record among ``adapters`` that serves a part, and where none does, why."""
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
    return None, f"{class_name(module)} is of no supported family ({known})"
