"""Eventful Transformers on a model of any supported family: ``apply_eventful`` and its handle."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager

from torch import Tensor, nn

from mmvitaccel.adapters import eventful_run
from mmvitaccel.adapters.attach import Swap, attach, detach, is_attached, link
from mmvitaccel.adapters.base import ViTAdapter, class_name, spec_of
from mmvitaccel.adapters.eventful_run import EventfulState, FrameInfo
from mmvitaccel.adapters.find import find_adapter, locate
from mmvitaccel.adapters.metainfo import FollowMetainfo
from mmvitaccel.core.attention import AttentionMode, TokenwiseAttention
from mmvitaccel.core.delta_attention import DeltaAttention
from mmvitaccel.core.eventful_block import EventfulOptions
from mmvitaccel.core.exact_attention import ExactAttention
from mmvitaccel.core.frame import frames_of, streams
from mmvitaccel.core.policy import Policy
from mmvitaccel.core.stream import StreamStore

METHOD = "Eventful"
ATTENTION_MODES: dict[str, type] = {
    "tokenwise": TokenwiseAttention,
    "delta": DeltaAttention,
    "exact": ExactAttention,
}


class EventfulHandle:
    """Steers Eventful on one model.

    Args:
        model: A model that Eventful is on.

    Attributes:
        model: The transformer that Eventful is on.
    """

    def __init__(self, model: nn.Module) -> None:
        found = next((m for m in model.modules() if _is_root(m)), None)
        if found is None:
            raise ValueError(
                f"Eventful is not on this {type(model).__name__}; use apply_eventful(model, ...)."
            )
        self.model = found
        self._state: EventfulState = link(found).state

    @property
    def attached(self) -> bool:
        """Whether this handle's Eventful is still on its model."""
        return is_attached(self.model, METHOD) and link(self.model).state is self._state

    @property
    def policy(self) -> Policy:
        """Says what the gates let through; a new one holds from the next frame on."""
        return self._state.policy

    @policy.setter
    def policy(self, value: Policy) -> None:
        self._state.policy = _checked(value)

    @property
    def options(self) -> EventfulOptions:
        """How the blocks run."""
        return self._state.options

    @property
    def streams(self) -> list[Hashable]:
        """Streams that are remembered, the one longest unused first."""
        return self._state.store.names

    @property
    def memory_bytes(self) -> int:
        """Bytes that the memory of all streams takes."""
        return self._state.store.memory_bytes()

    @property
    def frames(self) -> list[FrameInfo]:
        """The frames of the last call, in the batch's order; waits for a CUDA device."""
        return [frame.counted() for frame in self._state.frames]

    def passed_tokens(self) -> list[Tensor]:
        """Which tokens passed in the last call: (blocks, 3 gates, B, N) bool for each frame.

        B is 1 but for frames that went in lockstep; blocks is 0 for a frame of no stream.
        """
        return [frame.tokens() for frame in self._state.frames]

    def stream(
        self,
        stream: Hashable | list[Hashable],
        frame_id: int | Sequence[int] | None = None,
        cut: bool | Sequence[bool] = False,
    ) -> AbstractContextManager[None]:
        """Say whose frames the calls in a ``with`` block are given.

        Args:
            stream: A list with an id for each image of the batch; or one id, and then a batch of
                several goes in lockstep as one stream. None: belongs to no stream.
            frame_id: Number of the frame, or a list; one that is not above the last one starts the
                stream clean. None where frames come in order.
            cut: Whether a new scene begins, or a list; it starts the stream clean.

        Examples:
            >>> with handle.stream("video7", frame_id=3):
            ...     features = model(frame)
        """
        return streams(frames_of(stream, frame_id, cut))

    def reset(self, stream: Hashable | None = None) -> None:
        """Forget a stream, or all of them: the next frame is a first one."""
        self._state.store.drop(stream)

    def remove(self) -> None:
        """Give the model back bit for bit; a second call changes nothing."""
        if self.attached:
            for hooks in self._state.followed:
                hooks.remove()
            detach(self.model, METHOD)
        self._state.store.drop()

    def follow_metainfo(self, model: nn.Module) -> None:
        """Take streams from the data samples that ``model``, around this one, is called with.

        Of clips, each is a stream of its own, whatever its data sample says.
        """
        if not self._state.clips:
            self._state.followed.append(FollowMetainfo().register(model))


def apply_eventful(
    model: nn.Module,
    policy: Policy,
    attention: str | AttentionMode = "exact",
    *,
    gate_position: str = "after_norm",
    reference: str = "last_passed",
    kv_pool_size: int = 1,
    max_streams: int = 4,
    adapter: ViTAdapter | None = None,
) -> EventfulHandle:
    """Compute only what changed from frame to frame in a vision transformer for images.

    Keys of the state dict, parameters and classes of the package stay as they are. In training the
    model is the dense one; outputs in evaluation carry no gradients.

    Args:
        model: A supported vision transformer, or a module that holds exactly one; such a module
            may be a detector of OpenMMLab, whose data samples then say which video an image is of.
        policy: What the gates let through: :class:`mmvitaccel.core.policy.TopK`,
            ``TopFraction``, ``Threshold``, ``Always``, or any object with their one method.
        attention: ``exact``, ``tokenwise``, ``delta`` (the paper's), or a mode object.
        gate_position: ``after_norm``, or ``before_norm``: gates look at tokens before the
            LayerNorm, which then runs on those that pass.
        reference: ``last_passed``, or ``last_frame`` for STGT, the paper's baseline.
        kv_pool_size: Average keys and values of global blocks over squares of this many tokens.
        max_streams: Streams remembered at a time; the one longest unused goes first.
        adapter: A record for a model that no family here covers.

    Returns:
        The handle. Eventful on a model that has it already replaces what was there, with a warning.

    Raises:
        ValueError: No supported transformer is found, it takes whole clips, or an argument has no
            meaning.
        TypeError: The policy has no method ``select``.
        RuntimeError: Another method is on the model.
    """
    options = EventfulOptions(make_attention(attention), gate_position, reference, kv_pool_size)
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
            f"Eventful: the blocks of {class_name(model)} are attention branches alone, and the "
            "gates need whole blocks."
        )
    state = EventfulState(
        _checked(policy), options, StreamStore(max_streams), len(blocks), bool(adapter.clips)
    )
    num_prefix_tokens = len(adapter.prefix(model))
    entries = {name: eventful_run.entry for name in adapter.entries if hasattr(model, name)}
    swaps = [Swap(model, {**entries, **adapter.clips, "train": eventful_run.train})]
    for index, (block, spec) in enumerate(zip(blocks, specs)):
        info = (model, index, spec, num_prefix_tokens)
        swaps.append(Swap(block, {"forward": eventful_run.block_forward}, info))
    before = link(model)
    attach(model, METHOD, swaps, state)
    if before is not None:
        warnings.warn(
            f"Eventful was on this {class_name(model)} with {before.state.policy!r} and is "
            f"replaced by {policy!r}.",
            stacklevel=2,
        )
        for hooks in before.state.followed:
            hooks.remove()
    handle = EventfulHandle(model)
    if outer is not model:
        handle.follow_metainfo(outer)
    return handle


def make_attention(attention: str | AttentionMode) -> AttentionMode:
    """An attention mode from its name; an object that is one comes back.

    Raises:
        ValueError: The name is not known.
        TypeError: The object has no methods ``start`` and ``step``.
    """
    if isinstance(attention, str):
        if attention not in ATTENTION_MODES:
            raise ValueError(
                f"Eventful: attention={attention!r} must be one of {', '.join(ATTENTION_MODES)}."
            )
        return ATTENTION_MODES[attention]()
    if not all(hasattr(attention, name) for name in ("start", "step")):
        raise TypeError(
            f"Eventful: attention={attention!r} has no methods start and step; give one of "
            f"{', '.join(ATTENTION_MODES)} or an object with both."
        )
    return attention


def _checked(policy: Policy) -> Policy:
    if not callable(getattr(policy, "select", None)):
        raise TypeError(
            f"Eventful: policy={policy!r} has no method select; give TopK(k), TopFraction(f), "
            "Threshold(t), Always() or an object with that method."
        )
    return policy


def _is_root(module: nn.Module) -> bool:
    found = link(module)
    return found is not None and found.method == METHOD and bool(found.members)
