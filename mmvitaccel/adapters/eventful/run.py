"""A forward pass of an eventful model: a batch of frames, each with its stream's memory.

The model's blocks run incrementally in evaluation; in training they are the host's own. A frame
begins when its tokens reach the first block, by whatever method of the model they came.
"""

from __future__ import annotations

import copy
import functools
import math
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from mmvitaccel.adapters.attach import link
from mmvitaccel.adapters.base import BlockInput, BlockSpec, Normed, class_name
from mmvitaccel.adapters.eventful.streams.stream_run import StreamRun, in_turn
from mmvitaccel.adapters.tome.frozen import Frozen, FrozenBlock, frozen_block
from mmvitaccel.core.eventful.block import (
    BlockMemory,
    BlockSteps,
    Tokens,
    move_block,
    start_block,
    step_block,
)
from mmvitaccel.core.eventful.clip import clip_block
from mmvitaccel.core.eventful.gates.policy import Policy
from mmvitaccel.core.eventful.modes.global_attention import GlobalAttention
from mmvitaccel.core.eventful.modes.mode import QKV
from mmvitaccel.core.eventful.options import EventfulOptions
from mmvitaccel.core.eventful.together import Steps, in_step
from mmvitaccel.core.kernels.half_linear import half_linear
from mmvitaccel.core.kernels.huge_pages import huge_empty_like
from mmvitaccel.core.torch_modes import autocast_dtype


@dataclass(frozen=True)
class ClipTraining:
    """Training on clips: batches in which the frames of a clip lie one after the other.

    Attributes:
        frames: Of a clip.
        policy: Of all gates.
    """

    frames: int
    policy: Policy


@dataclass
class EventfulState(StreamRun):
    """What the model and its blocks share.

    Attributes:
        options: How blocks run.
        num_blocks: Blocks of the model.
        training: How blocks run in training; None as the host's own.
    """

    options: EventfulOptions = field(default_factory=EventfulOptions)
    num_blocks: int = 0
    training: ClipTraining | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> EventfulState:
        # reason: a copied model starts without streams.
        return EventfulState(
            self.policy,
            copy.deepcopy(self.store),
            self.clips,
            refresh=self.refresh,
            motion=self.motion,
            options=self.options,
            num_blocks=self.num_blocks,
            training=self.training,
        )


def entry(model: nn.Module, host: Any, *args: Any, **kwargs: Any) -> Any:
    """The override of a method by which tokens enter the blocks: it notes the input's shape."""
    state: EventfulState = link(model).state
    given = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
    adapter = link(model).info.adapter
    # reason: it refuses calls that ask for what is not made
    inner = any(index != state.num_blocks - 1 for index in adapter.asked(model, kwargs))
    if inner and state.motion is not None:
        return refuse_inner(model, host, *args, **kwargs)
    dim = adapter.batch_dim(model)
    size = given[0].shape[dim] if given else 0
    image = tuple(given[0].shape[1:]) if given else ()

    def run(*args: Any, **kwargs: Any) -> Any:
        call = functools.partial(host, *args, **kwargs)
        if state.motion is not None and not (model.training or state.is_part_of_a_pass):
            call = functools.partial(_on_scene, model, host, args, kwargs)
        return state.run_pass(image, call)

    if not (model.training or state.is_part_of_a_pass) and state.go_in_turn(size):
        return in_turn(run, size, dim, args, kwargs)
    return run(*args, **kwargs)


def refuse_inner(model: nn.Module, host: Any, *args: Any, **kwargs: Any) -> Any:
    """The override of a method that reads tokens within the model, where these lie on a scene."""
    if model.training:
        return host(*args, **kwargs)
    raise ValueError(
        f"Eventful: this method of {class_name(model)} reads tokens behind inner blocks, which lie "
        "on the scene and not on the frame; read the last block's, by forward or forward_features, "
        "or leave motion out."
    )


def _on_scene(model: nn.Module, host: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """A call of the model in which each picture is in its place in its stream's scene."""
    given = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
    moved = _moved(link(model).state, model, given)
    args = tuple(moved if value is given else value for value in args)
    return host(*args, **{n: moved if value is given else value for n, value in kwargs.items()})


@torch.no_grad()
def _moved(state: EventfulState, model: nn.Module, pictures: Tensor) -> Tensor:
    """Pictures that arrive, in their places; what is remembered of their streams follows."""
    adapter, (height, width) = link(model).info.adapter, pictures.shape[-2:]
    side = adapter.patches.size(model)
    if height % side or width % side:
        raise ValueError(
            f"Eventful: motion needs pictures of whole patches, and {height} x {width} pixels are "
            f"not a multiple of {side}; resize or pad them."
        )
    reason = adapter.patches.refuse(model, (height // side, width // side))
    if reason is not None:
        raise ValueError(
            f"Eventful: motion does not serve pictures of {height} x {width} pixels on "
            f"{class_name(model)}: {reason}; leave motion out."
        )
    # reason: tokens, which would tell, are not there yet
    state.begin(model, pictures, state.call.image, autocast_dtype(pictures.device.type))
    moved = state.follow(pictures, side)
    prefix = len(adapter.prefix(model))
    for stream in filter(None, state.running.states):
        if stream.scene.ring != stream.scene.before:
            for memory in stream.blocks.values():
                move_block(memory, stream.scene, prefix)
    return moved


def _placed(state: EventfulState, model: nn.Module, x: Tensor, prefix: int) -> Tensor:
    """Tokens that reach the first block, each with the position of its place in the scene."""
    patches, parts = link(model).info.adapter.patches, state.running.parts(x)
    placed = [
        part
        if stream is None
        else stream.scene.corrected(
            part, functools.partial(patches.positions, model, stream.scene.ring.size)
        )
        for stream, part in parts
    ]
    return placed[0] if len(placed) == 1 else torch.cat(placed)


def block_forward(block: nn.Module, host: Any, *args: Any, **kwargs: Any) -> Any:
    """The override of a block's forward."""
    found = link(block)
    state: EventfulState = found.state
    model, index, spec, num_prefix_tokens = found.info
    if block.training and state.training is None:
        return host(*args, **kwargs)
    given, merging = spec.enter(block, *args, **kwargs), frozen_block(block, spec)
    if block.training:
        if index == 0:
            _refuse_training(merging)
            link(model).info.bypass.check()
        tokens = Tokens(given.x, given.grid_size, given.rope, given.segments)
        steps = _steps(block, spec, num_prefix_tokens)
        x = clip_block(steps, tokens, state.training.frames, state.training.policy)
        return spec.leave(block, x, given)
    if index == 0 and state.motion is None:
        how = None if merging is None else (id(merging.state), merging.trace.schedule)
        state.begin(model, given.x, state.call.image, given.grid_size, how)
    if index == 0 and state.running is None:
        raise RuntimeError(
            f"Eventful: tokens came to the blocks of {class_name(model)} past its own methods, so "
            "that the place of its picture in the scene is not known; call the model, or leave "
            "motion out."
        )
    if index == 0 and state.running.next_block == 0:
        if state.motion is not None:
            given = given._replace(x=_placed(state, model, given.x, num_prefix_tokens))
        grid = given.grid_size
        if grid is None and given.sequences == 1:
            grid = grid_of(state.call.image, given.x.shape[1] - num_prefix_tokens)
        if merging is not None and hasattr(state.running.policy, "of_frame"):
            raise ValueError(
                f"Eventful: {state.running.policy!r} weighs tokens by their place in the picture, "
                "and ToMe on the same model merges tokens of different places; give its base."
            )
        state.decide(given.x, grid, num_prefix_tokens)
    running = state.running
    if running is None or running.next_block != index:  # called outside of the model's forward
        return host(*args, **kwargs)
    running.next_block += 1
    with torch.no_grad():
        x = _run(state, index, _steps(block, spec, num_prefix_tokens), given, merging)
        _note_attention(state, index, num_prefix_tokens)
        if running.next_block == state.num_blocks:
            state.saw(x)
            out = state.given(x)
            state.end(x.shape[1] if merging is None else merging.first_tokens(running.work))
            x = out
    return spec.leave(block, x, given)


def linear_forward(layer: nn.Linear, host: Any, x: Tensor) -> Tensor:
    """The override of a linear layer's forward: half precision in the faster way."""
    out = None if layer.training else half_linear(layer, x)
    return host(x) if out is None else out


def grid_of(image: tuple[int, ...] | None, num_tokens: int) -> tuple[int, int] | None:
    """The grid (H, W) of square patches that a picture (..., height, width) is cut into.

    None where that many tokens are not such a grid.
    """
    if not image or len(image) < 2:
        return None
    height, width = image[-2:]
    rows = round(math.sqrt(num_tokens * height / width))
    columns = num_tokens // max(rows, 1)
    same = rows * columns == num_tokens and rows * width == columns * height
    return (rows, columns) if same else None


def _note_attention(state: EventfulState, index: int, num_prefix_tokens: int) -> None:
    """Note how much attention tokens receive in a block, where the policy asks for it.

    Raises:
        ValueError: The block attends within windows, or there is none of that number.
    """
    for block in getattr(state.running.policy, "attended_blocks", ()):
        if not -state.num_blocks <= block < state.num_blocks:
            raise ValueError(
                f"Eventful: ReceivedAttention(block={block}), and the model has "
                f"{state.num_blocks} blocks; name one of them."
            )
        if block % state.num_blocks != index:
            continue
        for stream in filter(None, state.running.states):
            attention = stream.blocks[index].attention
            if not isinstance(attention, GlobalAttention):
                raise ValueError(
                    f"Eventful: ReceivedAttention(block={block}) asks for a block that attends "
                    "within windows, where a token is seen by its neighbours alone; name a global "
                    "one."
                )
            received = attention.received()[:, num_prefix_tokens:].mean(0)
            order = None if stream.scene is None else stream.scene.order(received.device)
            stream.matters.attended[block] = received if order is None else received[order]


def _refuse_training(merging: FrozenBlock | None) -> None:
    if merging is not None:
        raise RuntimeError(
            "Eventful: the model is trained on clips as its gates run it, and ToMe is on it too, "
            "of which training knows nothing; remove one of the two."
        )


def _run(
    state: EventfulState,
    index: int,
    steps: BlockSteps,
    given: BlockInput,
    merging: FrozenBlock | None,
) -> Tensor:
    """One block on the frames of a batch, each on its own memory, later frames in step."""
    parts, ropes = state.running.parts(given.x), state.running.parts(given.rope)
    whole = huge_empty_like(given.x) if len(parts) > 1 and merging is None else None
    places = [None] * len(parts) if whole is None else whole.split(1)
    merged = None if merging is None else _Merged(merging, state.running.work, len(parts))
    outs: dict[int, Tensor] = {}
    later: dict[int, Steps] = {}
    for i, ((stream, x), (_, rope), place) in enumerate(zip(parts, ropes, places)):
        own, tokens = steps, Tokens(x, given.grid_size, rope, given.segments)
        if stream is not None:
            # reason: an interrupted block leaves its memory half changed; the stream then starts
            # clean at its next frame.
            stream.busy = True
        memory = None if stream is None else stream.blocks.get(index)
        if merged is not None:
            if stream is not None and stream.refreshed:
                memory = None  # what merges is decided anew, and every gate begins with it
            own, tokens = merged.taken(i, steps, tokens, memory)
        if memory is not None:
            policy = state.running.policy_of(stream)
            later[i] = step_block(own, state.options, tokens, memory, policy, place)
            continue
        outs[i], memory = start_block(own, state.options, tokens)
        if merged is not None:
            memory.merged = merged.frozen[i]
        if stream is not None:
            stream.blocks[index] = memory
    if later:
        outs.update(zip(later, in_step(list(later.values()))))
    for stream, _ in parts:
        if stream is not None:
            stream.busy = False
    if whole is not None and all(outs[i] is place for i, place in enumerate(places)):
        return whole
    ordered = [outs[i] for i in range(len(outs))]
    if merged is not None:
        state.running.work = merged.frozen
        ordered = merging.leave(merged.frozen, ordered)
    return ordered[0] if len(ordered) == 1 else torch.cat(ordered)


class _Merged:
    """How the frames of a batch merge in one block.

    Args:
        merging: The block.
        before: How they did in the block in front; None at the first.
        count: Frames.

    Attributes:
        frozen: Of each frame, once its tokens were merged.
    """

    def __init__(self, merging: FrozenBlock, before: list[Frozen] | None, count: int) -> None:
        self.merging, self.before = merging, before
        self.frozen: list[Frozen | None] = [None] * count

    def taken(
        self, i: int, steps: BlockSteps, tokens: Tokens, memory: BlockMemory | None
    ) -> tuple[BlockSteps, Tokens]:
        """Steps and tokens of a frame, which decides what merges where it has no memory."""
        merging = self.merging
        if merging.index == 0:
            before = merging.standing(tokens.x, tokens.grid_size)
        else:
            before = self.before[i].after
        if memory is not None:
            before, self.frozen[i] = memory.merged.before, memory.merged

        def merge(x: Tensor, qkv: QKV | None) -> Tensor:
            if qkv is not None:
                self.frozen[i] = merging.decide(before, x, qkv)
            return self.frozen[i].merged(x)

        x, rope = before.present_tokens(tokens.x), merging.rope(tokens.rope, before)
        steps = replace(steps, key_bias=merging.key_bias(before), merge=merge)
        return steps, tokens._replace(x=x, rope=rope)


def _steps(block: nn.Module, spec: BlockSpec, num_prefix_tokens: int) -> BlockSteps:
    """The host's block, taken apart for the core."""

    def project(out: Tensor, h: Normed) -> Tensor:
        return spec.finish1(block, spec.project(block, out, h))

    return BlockSteps(
        norm1=spec.norm1(block),
        qkv=functools.partial(spec.qkv, block),
        project=project,
        norm2=spec.norm2(block),
        mlp=lambda h: spec.finish2(block, spec.mlp(block, h)),
        scale=spec.scale(block),
        window_size=spec.window_size(block),
        padding=functools.partial(spec.padding, block) if spec.padding else None,
        rel_pos=functools.partial(spec.rel_pos, block),
        num_prefix_tokens=num_prefix_tokens,
    )
