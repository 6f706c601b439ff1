"""A whole eventful detector: its parts, and one handle for all of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Union

import torch
from torch import nn

from mmvitaccel.adapters.attach import is_attached, link
from mmvitaccel.adapters.base import class_name, named_base
from mmvitaccel.adapters.eventful.handle import EventfulHandle, StreamHandle
from mmvitaccel.adapters.eventful.head import EventfulHeadHandle, attach_head
from mmvitaccel.adapters.eventful.neck import EventfulNeckHandle, attach_neck
from mmvitaccel.adapters.eventful.parts import (
    OF_HEADS,
    OVER_MAPS,
    detector_in,
    parts_of,
    records_of,
    why_not,
)
from mmvitaccel.adapters.eventful.roi import EventfulRoIHandle, attach_roi_head
from mmvitaccel.adapters.eventful.streams.frame_info import FrameInfo
from mmvitaccel.adapters.hosts.parts import HEADS_HELD
from mmvitaccel.adapters.parts import family_of, overridden
from mmvitaccel.core.eventful.gates.policy import Policy
from mmvitaccel.core.eventful.gates.refresh import OnRequest, Refresh
from mmvitaccel.core.eventful.gates.weighted import Weighted
from mmvitaccel.core.eventful.motion.translation import Motion, OnView

#: The handle of each part, in the order in which they run.
HANDLES: dict[str, type[StreamHandle]] = {
    "backbone": EventfulHandle,
    "neck": EventfulNeckHandle,
    "rpn_head": EventfulHeadHandle,
    "bbox_head": EventfulHeadHandle,
    "roi_head": EventfulRoIHandle,
}
Policies = Union[Policy, Mapping[str, Policy]]


class EventfulDetectorHandle:
    """Controls all eventful parts of one detector.

    Args:
        model: A detector with eventful parts, or a model that contains one.

    Attributes:
        model: The detector.
        parts: Handles of the parts by name, in order of execution.
        left_out: Reasons why the other parts of the detector are not eventful, by name.

    Raises:
        ValueError: No part of the detector is eventful.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = detector_in(model)
        here = {name: getattr(self.model, name, None) for name in HANDLES}
        modules = {name: part for name, part in here.items() if isinstance(part, nn.Module)}
        self.parts: dict[str, StreamHandle] = {
            name: HANDLES[name](part)
            for name, part in modules.items()
            if any(is_attached(inner, HANDLES[name].method) for inner in part.modules())
        }
        if not self.parts:
            raise ValueError(
                f"no part of this {class_name(self.model)} is eventful; use "
                "apply_eventful(model, policy, parts='all')."
            )
        self.left_out = {
            name: why_not(self.model, name) or "it was not requested"
            for name in modules
            if name not in self.parts
        }

    @property
    def attached(self) -> bool:
        """Whether all parts of this handle are still attached."""
        return all(part.attached for part in self.parts.values())

    @property
    def policy(self) -> Policy:
        """Policy of the first part's gates.

        A new policy applies from the next frame on, to backbone and neck. A head without an
        eventful neck keeps its own, ``parts["rpn_head"].policy``.
        """
        return next(iter(self.parts.values())).policy

    @policy.setter
    def policy(self, value: Policy) -> None:
        steered = [name for name in self.parts if name not in OF_HEADS]
        for name in steered or self.parts:
            self.parts[name].policy = _of_part(name, value)

    @property
    def streams(self) -> list[Hashable]:
        """Streams stored by any part; those of the first part least recently used first."""
        return list(dict.fromkeys(name for part in self.parts.values() for name in part.streams))

    @property
    def memory_bytes(self) -> int:
        """Memory in bytes of all streams in all parts."""
        return sum(part.memory_bytes for part in self.parts.values())

    @property
    def max_streams(self) -> int:
        """Maximum number of streams stored by each part."""
        return min(part.max_streams for part in self.parts.values())

    def bytes_of(self, stream: Hashable) -> int:
        """Memory in bytes of one stream in all parts; 0 if it is not stored."""
        return sum(part.bytes_of(stream) for part in self.parts.values())

    @property
    def frames(self) -> list[FrameInfo]:
        """Frames of the last call, as reported by the first part; synchronises with CUDA."""
        return next(iter(self.parts.values())).frames

    def computed(self) -> dict[str, float]:
        """Share of its work that each part did in the last call, averaged over its frames.

        See :attr:`FrameInfo.computed`; 1 for a part that has not run.
        """
        shares = {}
        for name, part in self.parts.items():
            frames = part.frames
            shares[name] = sum(f.computed for f in frames) / len(frames) if frames else 1.0
        return shares

    def stream(
        self,
        stream: Hashable | list[Hashable],
        frame_id: int | Sequence[int] | None = None,
        cut: bool | Sequence[bool] = False,
    ) -> AbstractContextManager[None]:
        """Name the streams of calls in a ``with`` block; see :meth:`StreamHandle.stream`.

        Applies to all parts.
        """
        return next(iter(self.parts.values())).stream(stream, frame_id, cut)

    def reset(self, stream: Hashable | None = None) -> None:
        """Drop the state of a stream, or of all, in all parts: the next frame is a first frame."""
        for part in self.parts.values():
            part.reset(stream)

    def refresh(self, stream: Hashable | None = None) -> None:
        """Request a complete computation of the next frame of a stream, or of all, in all parts."""
        for part in self.parts.values():
            part.refresh(stream)

    def remove(self) -> None:
        """Restore the detector exactly; a second call has no effect."""
        for part in self.parts.values():
            part.remove()

    def follow_metainfo(self, model: nn.Module) -> None:
        """Take stream names from the data samples of ``model``, which contains this one."""
        for part in self.parts.values():
            part.follow_metainfo(model)


def handles_in(model: nn.Module) -> dict[str, StreamHandle]:
    """Handles of all eventful parts of a model by name, in the model's order."""
    found: dict[str, StreamHandle] = {}
    for path, module in model.named_modules():
        attached = link(module)
        if attached is None or not attached.members:
            continue
        names = [name for name, kind in HANDLES.items() if kind.method == attached.method]
        if names:
            own = path.rpartition(".")[2]
            found[own if own in names else names[0]] = HANDLES[names[0]](module)
    return found


def attach_parts(
    model: nn.Module,
    policy: Policies,
    parts: str | Sequence[str],
    attach_backbone: Callable[..., StreamHandle],
    max_streams: int,
    buffer_dtype: torch.dtype | None = None,
    motion: Motion | None = None,
    group_norm: str | None = None,
    refresh: Refresh = OnRequest(),  # noqa: B008
) -> EventfulDetectorHandle:
    """Make parts of a detector eventful; see :func:`mmvitaccel.apply_eventful`.

    Args:
        model: The detector, or a tracker that contains it.
        policy: One policy for backbone and neck, whose gate then also passes cells that have
            clearly changed (:func:`~mmvitaccel.core.eventful.maps.top_up.topped_up`); or a dict
            with a policy for each part.
        parts: See :func:`parts_of`.
        attach_backbone: Function that attaches Eventful to a transformer, given policy and motion.
        max_streams: Maximum number of stored streams.
        buffer_dtype: Storage dtype of maps between convolutions of heads.
        motion: The camera motion; None for a fixed camera.
        group_norm: How a GroupNorm over a head's maps is served; None refuses it.
        refresh: Later frames that are computed completely; the first part decides for all.
    """
    detector = detector_in(model)
    served = parts_of(detector, parts, group_norm)
    on_scene = motion is not None and served != ("backbone",)
    if on_scene:
        _check_motion(detector, served, motion)
        motion = OnView(motion)
    scene = dict(on_scene=on_scene)
    policies = _by_part(policy, served)
    lends = any(part in OF_HEADS for part in served)
    for part in served:
        module = getattr(detector, part)
        if part == "backbone":
            attach_backbone(module, policies[part], motion=motion)
            continue
        adapter, _ = family_of(module, records_of(part, group_norm))
        # An eventful backbone decides
        own = dict(scene, refresh=refresh) if part == served[0] else scene
        if part == "neck":
            # Cells behind an eventful backbone have waited at its gates already
            tops_up = "backbone" in served and not isinstance(policy, Mapping)
            attach_neck(module, adapter, policies[part], max_streams, lends, tops_up=tops_up, **own)
        elif part == "roi_head":
            attach_roi_head(module, adapter, policies[part], max_streams, **scene)
        else:
            attach_head(module, adapter, policies[part], max_streams, buffer_dtype, **own)
    handle = EventfulDetectorHandle(detector)
    handle.follow_metainfo(detector)
    if model is not detector:
        handle.follow_metainfo(model)
    return handle


def _check_motion(detector: nn.Module, served: Sequence[str], motion: Motion) -> None:
    """Refuse parts that do not all follow the camera.

    Raises:
        ValueError: A dense part with weights would read maps of the scene as maps of the frame, or
            the backbone does not support motion.
    """
    plain = [
        name
        for name, module in detector.named_children()
        if name not in served and any(True for _ in module.parameters())
    ]
    if plain or "backbone" not in served:
        raise ValueError(
            f"Eventful: parts={tuple(served)} and motion={motion!r} are given, and of "
            f"{class_name(detector)} {', '.join(plain) or 'the backbone'} would be computed "
            f"whole: with motion all parts must follow the camera, or only the backbone "
            f"(parts='backbone')."
        )
    for name in served:
        if name not in OVER_MAPS:
            continue
        head = getattr(detector, name)
        adapter, _ = family_of(head, HEADS_HELD)
        reason = overridden(head, named_base(head, adapter.classes), adapter.decoding)
        if reason is not None:
            raise ValueError(
                f"Eventful: motion={motion!r} is not supported by {name}: {reason}; with "
                f"parts='backbone' only the backbone follows the camera."
            )


def _of_part(part: str, policy: Policy) -> Policy:
    """A common policy for one part: only tokens of a transformer are weighted."""
    return policy.base if isinstance(policy, Weighted) and part != "backbone" else policy


def _by_part(policy: Policies, served: Sequence[str]) -> dict[str, Policy | None]:
    """Policy of each part; None for the default of heads, every pixel that differs."""
    if not isinstance(policy, Mapping):
        return {part: None if part in OF_HEADS else _of_part(part, policy) for part in served}
    unknown = [part for part in policy if part not in served]
    if unknown:
        raise ValueError(
            f"Eventful: policy is given for {', '.join(map(repr, unknown))}, but the parts are "
            f"{', '.join(served)}."
        )
    if "backbone" in served and "backbone" not in policy:
        raise ValueError("Eventful: policy has no entry for 'backbone', which has no default.")
    return {part: policy.get(part) for part in served}
