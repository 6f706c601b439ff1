"""Forward pass of an eventful model: a batch of frames, each with its stream's state.

Blocks run incrementally in evaluation; in training they are the host's own. A frame begins when its
tokens reach the first block, from any method of the model.
"""

from __future__ import annotations

import copy
import functools
import warnings
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mmvitaccel.adapters.attach import check_attached, link
from mmvitaccel.adapters.base import BlockInput, BlockSpec, Normed, class_name
from mmvitaccel.adapters.eventful.merging import MergedFrames
from mmvitaccel.adapters.eventful.scene import on_scene, place_tokens, refuse_inner, tokens_given
from mmvitaccel.adapters.eventful.streams.in_turn import in_turn
from mmvitaccel.adapters.eventful.streams.stream_run import StreamRun
from mmvitaccel.adapters.eventful.weighing import grid_of, note_attention
from mmvitaccel.adapters.half_linears import convert_linears
from mmvitaccel.adapters.tome.frozen import FrozenBlock, frozen_block
from mmvitaccel.core.eventful.block import (
    BlockSteps,
    Tokens,
    start_block,
    step_block,
)
from mmvitaccel.core.eventful.clip import clip_block
from mmvitaccel.core.eventful.gates.policy import Policy
from mmvitaccel.core.eventful.options import EventfulOptions
from mmvitaccel.core.eventful.together import Steps, in_step
from mmvitaccel.core.kernels.export import refuse_symbols
from mmvitaccel.core.kernels.huge_pages import huge_empty_like


@dataclass(frozen=True)
class ClipTraining:
    """Training on clips: batches with the frames of a clip next to each other.

    Attributes:
        frames: Number of frames of a clip.
        policy: Policy of all gates.
    """

    frames: int
    policy: Policy


@dataclass
class EventfulState(StreamRun):
    """State shared by the model and its blocks.

    Attributes:
        options: Options of the blocks.
        num_blocks: Number of blocks.
        training: Training on clips; None for dense training.
        training_said: Whether a part in training mode was reported.
    """

    options: EventfulOptions = field(default_factory=EventfulOptions)
    num_blocks: int = 0
    training: ClipTraining | None = None
    training_said: bool = False

    def __deepcopy__(self, memo: dict[int, Any]) -> EventfulState:
        # A copied model starts without streams.
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
    found = link(model)
    state: EventfulState = found.state
    refuse_symbols(found.method, args, kwargs)
    given = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
    adapter = found.info.adapter
    # It refuses unsupported calls
    inner = any(index != state.num_blocks - 1 for index in adapter.asked(model, kwargs))
    if inner and state.motion is not None:
        return refuse_inner(model, host, *args, **kwargs)
    dim = adapter.batch_dim(model)
    size = given[0].shape[dim] if given else 0
    image = tuple(given[0].shape[1:]) if given else ()

    def begins() -> bool:
        """Whether the call brings a batch that streams are computed with."""
        if model.training or state.is_part_of_a_pass:
            return False
        return size > 0 and _in_training(model) is None

    def run(*args: Any, **kwargs: Any) -> Any:
        call = functools.partial(host, *args, **kwargs)
        if state.motion is not None and begins():
            call = functools.partial(on_scene, model, host, args, kwargs)
        out = state.run_pass(image, call)
        check_attached(model, found)
        return out

    if begins() and state.go_in_turn(size):
        return in_turn(run, size, dim, args, kwargs)
    return run(*args, **kwargs)


def block_forward(block: nn.Module, host: Any, *args: Any, **kwargs: Any) -> Any:
    """The override of a block's forward."""
    found = link(block)
    state: EventfulState = found.state
    model, index, spec, num_prefix_tokens = found.info
    # A host that cuts its own clips may have frozen blocks, in order also in training
    training = block.training if state.clips else model.training
    if training and state.training is None:
        return host(*args, **kwargs)
    given, merging = spec.enter(block, *args, **kwargs), frozen_block(block, spec)
    if training:
        if index == 0:
            _refuse_training(merging)
            link(model).info.bypass.check()
        tokens = Tokens(given.x, given.grid_size, given.rope, given.segments)
        steps = _steps(block, spec, num_prefix_tokens)
        x = clip_block(steps, tokens, state.training.frames, state.training.policy)
        return spec.leave(block, x, given)
    if index == 0 and _is_dense(model, given.x):
        state.free()
        return host(*args, **kwargs)
    if index == 0 and state.motion is None:
        how = None if merging is None else (id(merging.state), merging.trace.schedule)
        state.begin(model, given.x, state.call.image, given.grid_size, how)
    if index == 0 and state.running is None:
        raise RuntimeError(
            f"Eventful: tokens reached the blocks of {class_name(model)} without its own "
            f"methods, so the position of its picture in the scene is unknown; call the model, "
            f"or leave motion out."
        )
    if index == 0 and state.running.next_block == 0:
        if state.motion is not None:
            given = given._replace(x=place_tokens(state, model, given.x))
        grid = given.grid_size
        if grid is None and given.sequences == 1:
            grid = grid_of(state.call.image, given.x.shape[1] - num_prefix_tokens)
        if merging is not None and hasattr(state.running.policy, "of_frame"):
            raise ValueError(
                f"Eventful: {state.running.policy!r} weights tokens by their position, but ToMe "
                f"on the same model merges tokens of different positions; use its base policy."
            )
        state.decide(given.x, grid, num_prefix_tokens)
        convert_linears(model, "Eventful", link(model).info.adapter.blocks(model), given.x)
    running = state.running
    if running is None or running.next_block != index:  # called outside the model's forward
        return host(*args, **kwargs)
    running.next_block += 1
    with torch.no_grad():
        x = _run(state, index, _steps(block, spec, num_prefix_tokens), given, merging)
        note_attention(running, index, state.num_blocks, num_prefix_tokens)
        if running.next_block == state.num_blocks:
            state.saw(x)
            out = x if state.motion is None else tokens_given(state, x)
            state.end(x.shape[1] if merging is None else merging.first_tokens(running.work))
            x = out
    return spec.leave(block, x, given)


def _is_dense(model: nn.Module, x: Tensor) -> bool:
    """Whether a batch is empty, or a part of the model is in training mode, which is said once."""
    state, place = link(model).state, _in_training(model)
    if place is not None and not state.training_said:
        state.training_said = True
        warnings.warn(
            f"Eventful: {place!r} is in training mode and its {class_name(model)} is not, so "
            "frames are computed whole and not stored; call eval() on it, or train() on the model.",
            stacklevel=2,
        )
    return place is not None or len(x) == 0


def _in_training(model: nn.Module) -> str | None:
    """Path of a block in training mode, or of active dropout in one; None if there is none."""
    bypass = link(model).info.bypass
    attentions = [found.module for found in bypass.bypassed]  # some have dropout of their own
    # Not the wrappers of blocks, which are in training mode unless somebody says otherwise
    for part in (*bypass.parts, *attentions):
        found = [m for m in part.modules() if m.training and (m is part or _drops(m))]
        if found:
            return next(name for name, m in model.named_modules() if m is found[0])
    return None


def _drops(module: nn.Module) -> bool:
    share = getattr(module, "p", None) or getattr(module, "drop_prob", None)
    return bool(share) and "Drop" in type(module).__name__


def _refuse_training(merging: FrozenBlock | None) -> None:
    if merging is not None:
        raise RuntimeError(
            "Eventful: training on clips with active gates does not support ToMe on the same "
            "model; remove one of the two."
        )


def _run(
    state: EventfulState,
    index: int,
    steps: BlockSteps,
    given: BlockInput,
    merging: FrozenBlock | None,
) -> Tensor:
    """One block on the frames of a batch, each with its own state, later frames in step."""
    given = given._replace(x=given.x.detach())  # counters of torch ask for the node of its gradient
    parts, ropes = state.running.parts(given.x), state.running.parts(given.rope)
    whole = huge_empty_like(given.x) if len(parts) > 1 and merging is None else None
    places = [None] * len(parts) if whole is None else whole.split(1)
    merged = None if merging is None else MergedFrames(merging, state.running.work, len(parts))
    outs: dict[int, Tensor] = {}
    later: dict[int, Steps] = {}
    for i, ((stream, x), (_, rope), place) in enumerate(zip(parts, ropes, places)):
        own, tokens = steps, Tokens(x, given.grid_size, rope, given.segments)
        if stream is not None:
            # An interrupted block leaves inconsistent state, so the stream is reset at its
            # next frame
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


def _steps(block: nn.Module, spec: BlockSpec, num_prefix_tokens: int) -> BlockSteps:
    """The steps of the host's block for the core."""

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
