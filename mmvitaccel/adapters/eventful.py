"""Eventful Transformers on a model of any supported family: ``apply_eventful`` and its handle.

The model's blocks run incrementally in evaluation; in training they are the host's own. A frame
begins when its tokens reach the first block, by whatever method of the model they came.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from mmvitaccel.adapters.attach import Swap, attach, detach, is_attached, link
from mmvitaccel.adapters.base import BlockInput, BlockSpec, ViTAdapter, class_name, spec_of
from mmvitaccel.adapters.find import find_adapter, locate
from mmvitaccel.adapters.fingerprint import fingerprint
from mmvitaccel.adapters.metainfo import FollowMetainfo
from mmvitaccel.core.attention import AttentionMode, TokenwiseAttention
from mmvitaccel.core.delta_attention import DeltaAttention
from mmvitaccel.core.eventful_block import (
    BlockSteps,
    EventfulOptions,
    Tokens,
    start_block,
    step_block,
)
from mmvitaccel.core.exact_attention import ExactAttention
from mmvitaccel.core.policy import Policy
from mmvitaccel.core.stream import (
    Frame,
    StreamState,
    StreamStore,
    current_frames,
    frames_of,
    streams,
)

METHOD = "Eventful"
ATTENTION_MODES: dict[str, type] = {
    "tokenwise": TokenwiseAttention,
    "delta": DeltaAttention,
    "exact": ExactAttention,
}
#: The stream of frames that come without a name, one at a time.
UNNAMED = "unnamed"


@dataclass(frozen=True)
class FrameInfo:
    """One frame of the last call.

    Attributes:
        stream: Its stream; None where it belonged to none and was computed whole.
        frame_id: Its number, if it was given.
        first: Whether the stream started clean with it.
        num_tokens: N.
        passed: For each block, the tokens that passed its three gates (queries, keys and values;
            output projection; MLP).
    """

    stream: Hashable
    frame_id: int | None
    first: bool
    num_tokens: int
    passed: list[tuple[int, int, int]]


@dataclass
class _Pass:
    """A batch on its way through the blocks.

    Attributes:
        frames: Whose images it holds.
        states: What is remembered of them, None for a frame of no stream.
        next_block: The block that it reaches next.
    """

    frames: tuple[Frame, ...]
    states: list[StreamState | None]
    next_block: int = 0


@dataclass
class EventfulState:
    """What the model and its blocks share.

    Attributes:
        policy: Says what the gates let through.
        options: How blocks run.
        store: The streams.
        num_blocks: Blocks of the model.
        running: The batch in the blocks.
        frames: The frames of the batch before, and what passed the gates of each block.
        clips: Whether frames come in clips of the host's, whose streams nobody outside names.
        image: Shape of the input of the method by which the present batch came.
        followed: Hooks that were put on a model around this one.
    """

    policy: Policy
    options: EventfulOptions
    store: StreamStore
    num_blocks: int
    clips: bool = False
    running: _Pass | None = None
    frames: list[tuple[FrameInfo, list[Any]]] = field(default_factory=list)
    image: tuple[int, ...] | None = None
    followed: list[FollowMetainfo] = field(default_factory=list)

    def __deepcopy__(self, memo: dict[int, Any]) -> EventfulState:
        # reason: a copied model starts with no streams of its own.
        store = StreamStore(self.store.max_streams)
        return EventfulState(self.policy, self.options, store, self.num_blocks, self.clips)

    def begin(self, model: nn.Module, given: BlockInput) -> None:
        """A batch reaches the first block."""
        x = given.x
        frames = current_frames()
        if frames is None:
            frames = (Frame(UNNAMED),)
            if len(x) > 1:
                raise ValueError(
                    f"Eventful: a batch of {len(x)} frames came without stream ids; name the "
                    "streams, `with handle.stream(['a', 'b', ...]):`, or in a config put "
                    "'video_id' in the meta_keys."
                )
        lockstep = len(frames) == 1 and frames[0].lockstep
        if len(frames) != len(x) and not lockstep:
            raise ValueError(
                f"Eventful: {len(frames)} streams were named for a batch of {len(x)} frames; name "
                "one for each."
            )
        shape = (len(x) if lockstep else 1, *x.shape[1:])
        # reason: what was made in inference mode cannot be changed outside of it.
        how = (x.dtype, x.device, torch.is_inference_mode_enabled())
        signature = (self.image, shape, given.grid_size, *how, fingerprint(model))
        self.running = _Pass(frames, self.store.begin(frames, signature))
        for state, part in self.parts(x):
            if state is not None:
                state.saw(part)

    def end(self, x: Tensor) -> None:
        """A batch leaves the last block as ``x`` (B, N, C)."""
        self.frames = []
        for frame, (state, part) in zip(self.running.frames, self.parts(x)):
            first, blocks = True, []
            if state is not None:
                state.saw(part)
                first, blocks = state.num_frames == 1, list(state.blocks.values())
            info = FrameInfo(frame.stream, frame.frame_id, first, x.shape[1], [])
            # reason: the selections alone, so that a stream that is dropped frees its memory.
            self.frames.append((info, [block.passed for block in blocks]))
        self.running = None

    def parts(self, x: Tensor | None) -> list[tuple[StreamState | None, Tensor | None]]:
        """The states of the running batch, each with its share of ``x`` (B, ...)."""
        states = self.running.states
        if x is None or len(states) == 1 or len(x) == 1:
            return [(state, x) for state in states]
        return list(zip(states, x.split(1)))


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
        return [_with_counts(info, passed) for info, passed in self._state.frames]

    def passed_tokens(self) -> list[Tensor]:
        """Which tokens passed in the last call: (blocks, 3 gates, B, N) bool for each frame.

        B is 1 but for frames that went in lockstep; blocks is 0 for a frame of no stream.
        """
        return [_passed_tokens(info, passed) for info, passed in self._state.frames]

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
    entries = {name: _entry for name in adapter.entries if hasattr(model, name)}
    swaps = [Swap(model, {**entries, **adapter.clips, "train": _train})]
    for index, (block, spec) in enumerate(zip(blocks, specs)):
        info = (model, index, spec, num_prefix_tokens)
        swaps.append(Swap(block, {"forward": _block_forward}, info))
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


def _with_counts(info: FrameInfo, passed: list[Any]) -> FrameInfo:
    counts = [tuple(sum(selection.counts) for selection in block) for block in passed]
    return replace(info, passed=counts)


def _passed_tokens(info: FrameInfo, passed: list[Any]) -> Tensor:
    if not passed:
        return torch.zeros(0, 3, 1, info.num_tokens, dtype=torch.bool)
    return torch.stack([torch.stack([gate.mask() for gate in block]) for block in passed])


def _train(model: nn.Module, host: Any, mode: bool = True) -> nn.Module:
    """The override of ``train``: what was remembered in another mode is forgotten."""
    if mode != model.training:
        link(model).state.store.drop()
    return host(mode)


def _entry(model: nn.Module, host: Any, *args: Any, **kwargs: Any) -> Any:
    """The override of a method by which tokens enter the blocks: it notes the input's shape."""
    state: EventfulState = link(model).state
    if state.image is not None:  # an entry that another one calls
        return host(*args, **kwargs)
    given = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
    state.image = tuple(given[0].shape[1:]) if given else ()
    try:
        return host(*args, **kwargs)
    finally:
        state.image = state.running = None


def _block_forward(block: nn.Module, host: Any, *args: Any, **kwargs: Any) -> Any:
    """The override of a block's forward."""
    found = link(block)
    state: EventfulState = found.state
    model, index, spec, num_prefix_tokens = found.info
    if block.training:
        return host(*args, **kwargs)
    given = spec.enter(block, *args, **kwargs)
    if index == 0:
        state.begin(model, given)
    running = state.running
    if running is None or running.next_block != index:  # somebody calls the block alone
        return host(*args, **kwargs)
    running.next_block += 1
    with torch.no_grad():
        x = _run(state, index, _steps(block, spec, num_prefix_tokens), given)
        if running.next_block == state.num_blocks:
            state.end(x)
    return spec.leave(block, x, given)


def _run(state: EventfulState, index: int, steps: BlockSteps, given: BlockInput) -> Tensor:
    """One block on the frames of a batch, each on its own memory."""
    outs = []
    ropes = state.parts(given.rope)
    for (stream, x), (_, rope) in zip(state.parts(given.x), ropes):
        tokens = Tokens(x, given.grid_size, rope)
        if stream is None:
            out, _ = start_block(steps, state.options, tokens)
        else:
            out = _run_stream(state, stream, index, steps, tokens)
        outs.append(out)
    return outs[0] if len(outs) == 1 else torch.cat(outs)


def _run_stream(
    state: EventfulState, stream: StreamState, index: int, steps: BlockSteps, tokens: Tokens
) -> Tensor:
    """One block on a frame of a stream."""
    memory = stream.blocks.get(index)
    # reason: a block that is broken off leaves its memory half changed; the stream then starts
    # clean at its next frame.
    stream.busy = True
    if memory is None:
        out, stream.blocks[index] = start_block(steps, state.options, tokens)
    else:
        out = step_block(steps, state.options, tokens, memory, state.policy)
    stream.busy = False
    return out


def _steps(block: nn.Module, spec: BlockSpec, num_prefix_tokens: int) -> BlockSteps:
    """The host's block, taken apart for the core."""

    def project(out: Tensor, h: Tensor) -> Tensor:
        return spec.finish1(block, spec.project(block, out, h))

    return BlockSteps(
        norm1=functools.partial(spec.norm1, block),
        qkv=functools.partial(spec.qkv, block),
        project=project,
        norm2=functools.partial(spec.norm2, block),
        mlp=lambda h: spec.finish2(block, spec.mlp(block, h)),
        scale=spec.scale(block),
        window_size=spec.window_size(block),
        rel_pos=functools.partial(spec.rel_pos, block),
        num_prefix_tokens=num_prefix_tokens,
    )
