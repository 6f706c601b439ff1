"""Eventful Transformers on a model of any supported family: ``apply_eventful`` and its handle."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import nn

from mmvitaccel.adapters.attach import Swap, is_attached, link
from mmvitaccel.adapters.base import ViTAdapter, class_name, host_class, spec_of
from mmvitaccel.adapters.bypass import bypass_of_blocks
from mmvitaccel.adapters.eventful import run as eventful_run
from mmvitaccel.adapters.eventful.detector import (
    EventfulDetectorHandle,
    Policies,
    attach_parts,
)
from mmvitaccel.adapters.eventful.handle import EventfulHandle, checked_policy
from mmvitaccel.adapters.eventful.neck import METHOD as NECK
from mmvitaccel.adapters.eventful.parts import check_group_norm
from mmvitaccel.adapters.eventful.run import EventfulState
from mmvitaccel.adapters.eventful.scene import check_motion, checked_motion, refuse_inner
from mmvitaccel.adapters.eventful.streams.around import follow_models_around
from mmvitaccel.adapters.eventful.streams.attachment import attach_run, train
from mmvitaccel.adapters.eventful.streams.stream_run import INTERPOLATED, Root
from mmvitaccel.adapters.given import check_adapter, check_model, check_object
from mmvitaccel.adapters.hosts.find import find_adapter, locate
from mmvitaccel.adapters.tome.frozen import why_not_frozen
from mmvitaccel.adapters.tome.run import METHOD as TOME
from mmvitaccel.core.eventful.gates.refresh import OnRequest, Refresh
from mmvitaccel.core.eventful.modes.delta import DeltaAttention
from mmvitaccel.core.eventful.modes.exact import ExactAttention
from mmvitaccel.core.eventful.modes.mode import AttentionMode, TokenwiseAttention
from mmvitaccel.core.eventful.motion.translation import Motion
from mmvitaccel.core.eventful.options import EventfulOptions, buffer_dtype_of
from mmvitaccel.core.eventful.store import StreamStore

ATTENTION_MODES: dict[str, type] = {
    "tokenwise": TokenwiseAttention,
    "delta": DeltaAttention,
    "exact": ExactAttention,
}


def apply_eventful(
    model: nn.Module,
    policy: Policies,
    attention: str | AttentionMode = "exact",
    *,
    parts: str | Sequence[str] | None = None,
    gate_position: str = "after_norm",
    reference: str = "last_passed",
    kv_pool_size: int = 1,
    buffer_dtype: str | torch.dtype | None = None,
    refresh: Refresh = OnRequest(),  # noqa: B008
    motion: Motion | None = None,
    group_norm: str | None = None,
    max_streams: int = 4,
    adapter: ViTAdapter | None = None,
) -> EventfulHandle | EventfulDetectorHandle:
    """Recompute only what changed from frame to frame, in a transformer or a whole detector.

    With ``parts``, the neck and the heads of a detector also recompute only what changed. Because a
    transformer changes every cell slightly, the neck's gate selects, by the policy, the cells that
    changed most since they last passed, and up to four times the budget of those that have clearly
    changed; all others keep their values bit for bit. Heads use the
    neck's changed pixels, and their results equal those of the plain heads on the same levels. If
    the backbone is dense, changes are detected at its outputs. The levels between neck and heads,
    and the outputs of map heads before decoding, are the stored tensors themselves, which the
    stream's next frame overwrites: clone those that you keep.

    State dict keys, parameters and classes do not change. In training the model is dense; outputs
    in evaluation have no gradients.

    Args:
        model: A supported vision transformer, or a module that contains exactly one, such as a
            detector of OpenMMLab, whose data samples then name the video of an image.
        policy: Selects the tokens that pass the gates: :class:`~mmvitaccel.TopK`, ``TopFraction``,
            ``Threshold``, ``Always``, or any object with their method. With ``parts``, it is used
            in backbone and neck; or give a dict with a policy for each part, which its gates then
            follow exactly.
        attention: ``exact``, ``tokenwise``, ``delta`` (the paper's), or a mode object.
        parts: For a detector of mmdet: ``all``, or names among ``backbone``, ``neck``,
            ``rpn_head``, ``bbox_head`` (of a one-stage detector) and ``roi_head``. Unsupported
            parts raise an error, or cause a warning with ``all``. None for the transformer only.
        gate_position: ``after_norm``, or ``before_norm``: gates compare tokens before the
            LayerNorm, which then only runs on tokens that pass.
        reference: ``last_passed``, or ``last_frame`` for STGT, the paper's baseline.
        kv_pool_size: Side in tokens of the squares over which keys and values of global blocks are
            averaged.
        buffer_dtype: ``bfloat16`` or ``float16`` stores tokens, queries, keys, values and results
            in half precision, which about halves the memory of a stream; running sums stay in
            single precision. With ``parts``, this includes the maps between convolutions of heads.
            Stored values are rounded, and converted when read. None uses the dtype of the
            computation.
        refresh: Later frames that are computed completely: ``OnRequest`` (those requested by
            ``handle.refresh``, which always works), :class:`~mmvitaccel.OnChange` or ``Every``, or
            any object with their method.
        motion: Lets a stream's memory follow a moving camera: :class:`~mmvitaccel.Translation`, or
            any object with its methods. None for a fixed camera. It supports timm's ViT, ViTDet and
            SAM's image encoders on pictures whose size is a multiple of the patch size; ``maps`` of
            the motion defines the grid of the outputs, by default that of the frame. With
            ``parts``, the backbone alone or all parts of the detector follow the camera; boxes and
            masks are in frame coordinates.
        group_norm: ``held`` supports map heads with GroupNorm (stock FCOS, ATSS), using the means
            and standard deviations of the stream's last completely computed frame. Such a frame is
            exact; in later frames the head is an approximation whose error grows with the change
            since then, which ``refresh=Every(frames)`` limits. None refuses such heads.
        max_streams: Maximum number of stored streams; the least recently used is evicted.
        adapter: A record for a model that is not supported by default.

    Returns:
        The handle; with ``parts`` that of the detector. An existing Eventful or EventfulNeck is
        replaced with a warning.

    Raises:
        ValueError: A part does not exist or is not supported, there is no supported transformer, it
            takes whole clips, it does not support motion, or an argument is invalid.
        TypeError: The policy has no method ``select``, the refresh no method ``due``, or the motion
            no methods ``start`` and ``follow``.
        RuntimeError: The model has an incompatible method.
    """
    check_model("Eventful", model)
    check_adapter("Eventful", adapter)
    kept_as = buffer_dtype_of(buffer_dtype)
    check_group_norm(group_norm, parts)
    if parts is not None:
        if adapter is not None:
            raise ValueError(
                "Eventful: parts and adapter are both given, but the records of parts are found "
                "automatically; leave adapter out."
            )
        if motion is not None:
            checked_motion(motion)
        transformer = functools.partial(
            apply_eventful,
            attention=attention,
            gate_position=gate_position,
            reference=reference,
            kv_pool_size=kv_pool_size,
            buffer_dtype=buffer_dtype,
            refresh=refresh,
            max_streams=max_streams,
        )
        return attach_parts(
            model, policy, parts, transformer, max_streams, kept_as, motion, group_norm,
            checked_refresh(refresh),
        )  # fmt: skip
    options = EventfulOptions(
        make_attention(attention),
        gate_position,
        reference,
        kv_pool_size,
        kept_as,
    )
    outer = model
    if adapter is None:
        model = locate(model)[1]
        adapter = find_adapter(model)
    if adapter.takes_clip:
        raise ValueError(
            f"Eventful: {class_name(model)} takes a whole clip at once, so there is no earlier "
            "frame to compare with; use a model of single frames, or ToMe."
        )
    blocks = list(adapter.blocks(model))
    specs = [spec_of(block, adapter) for block in blocks]
    if any(spec.mlp is None for spec in specs):
        raise ValueError(
            f"Eventful: the blocks of {class_name(model)} are attention branches only, but the "
            f"gates need complete blocks."
        )
    merged = link(model, TOME)
    if merged is not None:
        reason = why_not_frozen(adapter, specs, merged.state.options.matching, kv_pool_size, motion)
        if reason is not None:
            raise RuntimeError(
                f"Eventful cannot be attached to {host_class(model).__name__}: ToMe is already "
                f"attached and {reason}; remove ToMe first."
            )
    if motion is not None:
        check_motion(motion, model, adapter, kv_pool_size)
        if motion.maps == "frame" and any(is_attached(m, NECK) for m in outer.modules()):
            raise ValueError(INTERPOLATED)
    state = EventfulState(
        checked_policy(policy, on_tokens=True),
        StreamStore(max_streams),
        bool(adapter.clips),
        refresh=checked_refresh(refresh),
        motion=motion,
        options=options,
        num_blocks=len(blocks),
    )
    bypass = bypass_of_blocks(EventfulHandle.method, model, adapter, specs, gradients=False)
    bypass.check()
    num_prefix_tokens = len(adapter.prefix(model))
    entries = {
        name: refuse_inner
        if motion and _reads_inner(model, reads, len(blocks))
        else eventful_run.entry
        for name, reads in adapter.entries.items()
        if hasattr(model, name)
    }
    root = Root(bypass, adapter)
    swaps = [Swap(model, {**entries, **adapter.clips, "train": train}, root)]
    for index, (block, spec) in enumerate(zip(blocks, specs)):
        info = (model, index, spec, num_prefix_tokens)
        swaps.append(Swap(block, {"forward": eventful_run.block_forward}, info))
    attach_run(model, EventfulHandle.method, swaps, state)
    follow_models_around(model)
    handle = EventfulHandle(model)
    if outer is not model:
        handle.follow_metainfo(outer)
    return handle


def checked_refresh(refresh: Refresh) -> Refresh:
    """Check a refresh.

    Raises:
        TypeError: It has no method ``due``.
    """
    give = "OnChange(above), Every(frames), OnRequest() or an object with that method"
    check_object("Eventful", "refresh", refresh, ("due",), give)
    return refresh


def _reads_inner(
    model: nn.Module, reads: Callable[[nn.Module], Iterable[int]], num_blocks: int
) -> bool:
    """Whether a method reads tokens after blocks other than the last."""
    return any(index != num_blocks - 1 for index in reads(model))


def make_attention(attention: str | AttentionMode) -> AttentionMode:
    """Build an attention mode from its name; an object is returned unchanged.

    Raises:
        ValueError: The name is unknown.
        TypeError: The object has no methods ``start`` and ``step``.
    """
    if isinstance(attention, str):
        if attention not in ATTENTION_MODES:
            raise ValueError(
                f"Eventful: attention={attention!r} must be one of {', '.join(ATTENTION_MODES)}."
            )
        return ATTENTION_MODES[attention]()
    give = f"one of {', '.join(ATTENTION_MODES)} or an object with both"
    check_object("Eventful", "attention", attention, ("start", "step"), give)
    return attention
