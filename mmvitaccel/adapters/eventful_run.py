"""An eventful model at work: a batch on its way through the blocks, each frame on its memory.

The model's blocks run incrementally in evaluation; in training they are the host's own. A frame
begins when its tokens reach the first block, by whatever method of the model they came.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from mmvitaccel.adapters.attach import link
from mmvitaccel.adapters.base import BlockInput, BlockSpec
from mmvitaccel.adapters.fingerprint import fingerprint
from mmvitaccel.adapters.metainfo import FollowMetainfo
from mmvitaccel.core.eventful_block import (
    BlockSteps,
    EventfulOptions,
    Tokens,
    start_block,
    step_block,
)
from mmvitaccel.core.frame import Frame, current_frames
from mmvitaccel.core.policy import Policy
from mmvitaccel.core.selection import Selection
from mmvitaccel.core.stream import StreamState, StreamStore

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


@dataclass(frozen=True)
class Passed:
    """What passed the gates in one frame.

    Attributes:
        info: The frame; its ``passed`` is empty, for counting may wait for a device.
        blocks: The three gates' selections of each block that remembers the stream.
    """

    info: FrameInfo
    blocks: list[tuple[Selection, Selection, Selection]]

    def counted(self) -> FrameInfo:
        """The frame with its counts."""
        counts = [tuple(sum(gate.counts) for gate in block) for block in self.blocks]
        return replace(self.info, passed=counts)

    def tokens(self) -> Tensor:
        """Which tokens passed, (blocks, 3, B, N) bool."""
        if not self.blocks:
            return torch.zeros(0, 3, 1, self.info.num_tokens, dtype=torch.bool)
        return torch.stack([torch.stack([gate.mask() for gate in b]) for b in self.blocks])


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
    frames: list[Passed] = field(default_factory=list)
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
            self.frames.append(Passed(info, [block.passed for block in blocks]))
        self.running = None

    def parts(self, x: Tensor | None) -> list[tuple[StreamState | None, Tensor | None]]:
        """The states of the running batch, each with its share of ``x`` (B, ...)."""
        states = self.running.states
        if x is None or len(states) == 1 or len(x) == 1:
            return [(state, x) for state in states]
        return list(zip(states, x.split(1)))


def train(model: nn.Module, host: Any, mode: bool = True) -> nn.Module:
    """The override of ``train``: what was remembered in another mode is forgotten."""
    if mode != model.training:
        link(model).state.store.drop()
    return host(mode)


def entry(model: nn.Module, host: Any, *args: Any, **kwargs: Any) -> Any:
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


def block_forward(block: nn.Module, host: Any, *args: Any, **kwargs: Any) -> Any:
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
