"""A pre-norm transformer block that recomputes what changed (Eventful Transformers, section 4).

There are three gates with buffers: around the projection to queries, keys and values, around the
output projection, and around the MLP. The skip connections stay full-size. Attention between the
first two gates uses one of the modes of :mod:`mmvitaccel.core.eventful.modes`. In windows it is
dense, and windows without changes are skipped.

Shapes: B batch, N tokens, M tokens that pass a gate, C channels, h heads, D channels of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmvitaccel.core.attention.rel_pos import RelPos
from mmvitaccel.core.eventful.gates.gate import TokenBuffer, TokenGate
from mmvitaccel.core.eventful.gates.policy import Gated, Policy
from mmvitaccel.core.eventful.gates.selection import Selection, everything
from mmvitaccel.core.eventful.gates.token_errors import errors_of_sum
from mmvitaccel.core.eventful.modes.global_attention import GlobalAttention
from mmvitaccel.core.eventful.modes.mode import QKV, Logits
from mmvitaccel.core.eventful.modes.windowed_attention import WindowedAttention
from mmvitaccel.core.eventful.motion.scene import Scene
from mmvitaccel.core.eventful.options import EventfulOptions
from mmvitaccel.core.eventful.together import Steps, Wanted
from mmvitaccel.core.kernels.openmp_wait import share_cores
from mmvitaccel.core.torch_modes import without_autocast


@dataclass(frozen=True)
class BlockSteps:
    """The steps of one block; each step computes every token independently.

    Attributes:
        norm1: (B, M, C) -> (B, M, C).
        qkv: From (B, M, C), and the rotary table of these tokens or None, to queries, keys and
            values, each (B, h, M, D).
        project: From the attention output (B, M, h * D), and a function that returns ``norm1``'s
            output for the same tokens, to the attention branch (B, M, C), including LayerScale.
        norm2: (B, M, C) -> (B, M, C).
        mlp: (B, M, C) -> (B, M, C), including LayerScale.
        scale: Factor of the attention logits.
        window_size: Side of a window in tokens; 0 for global attention.
        padding: From queries to the query, key and value of a padding token, each (1, h, 1, D) with
            their dtype and device; used with windows only.
        rel_pos: From a grid (H, W) to the rows of relative positions on both axes, or None.
        num_prefix_tokens: Number of leading tokens that are not on the grid.
        key_bias: Added to the logits of each key, (B, N) float32, or None.
        merge: Merges the tokens (B, N, C) between attention and MLP into (B, K, C). It gets the
            queries, keys and values of all tokens in a first frame, and None in later frames, which
            merge like the first. None if nothing merges.
    """

    norm1: Callable[[Tensor], Tensor]
    qkv: Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor, Tensor]]
    project: Callable[[Tensor, Callable[[], Tensor]], Tensor]
    norm2: Callable[[Tensor], Tensor]
    mlp: Callable[[Tensor], Tensor]
    scale: float
    window_size: int = 0
    padding: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]] | None = None
    rel_pos: Callable[[tuple[int, int]], tuple[Tensor, Tensor] | None] = lambda grid: None
    num_prefix_tokens: int = 0
    key_bias: Tensor | None = None
    merge: Callable[[Tensor, QKV | None], Tensor] | None = None


class Tokens(NamedTuple):
    """Input of a block.

    Attributes:
        x: (B, N, C).
        grid_size: (H, W) of the tokens after the prefix; None if unknown.
        rope: Rotary table (1 or B, 1 or h, N, 2D), or None.
        segments: Number of parts of equal length into which ``x`` is split, each with attention
            within itself; 1 for attention as defined by the block's steps.
    """

    x: Tensor
    grid_size: tuple[int, int] | None = None
    rope: Tensor | None = None
    segments: int = 1


@dataclass
class BlockMemory:
    """State of one block in a stream.

    Attributes:
        qkv_gate: Before queries, keys and values.
        attention: Queries, keys, values and the state of attention.
        proj_gate: Before the output projection.
        proj: Buffer of the attention branch.
        mlp_gate: Before the MLP.
        mlp: Buffer of the MLP branch.
        passed: Selections of the three gates in the last frame.
        left_out: What each gate left out of the last frame, three () float32.
        merged: How tokens merged in the last completely computed frame; None without merging.
    """

    qkv_gate: TokenGate
    attention: GlobalAttention | WindowedAttention
    proj_gate: TokenGate
    proj: TokenBuffer
    mlp_gate: TokenGate
    mlp: TokenBuffer
    passed: tuple[Selection, Selection, Selection]
    left_out: tuple[Tensor, Tensor, Tensor]
    merged: Any = None


def start_block(
    steps: BlockSteps, options: EventfulOptions, tokens: Tokens
) -> tuple[Tensor, BlockMemory]:
    """Compute the first frame densely, and create the state.

    Returns:
        Output (B, N, C), with fewer tokens if they merge, and the state for :func:`step_block`.
    """
    x, late = tokens.x, options.gate_position == "after_norm"
    _refuse_other_half(x.dtype, options.buffer_dtype)
    share_cores(x)
    if x.device.type == "cpu":
        # Glibc requests fresh pages for every allocation that is at least as large as the
        # largest block freed so far, up to 32 MB. All token tensors have one size.
        torch.empty(30 * 2**20, dtype=torch.uint8)
    normed = steps.norm1(x)
    qkv = QKV(*steps.qkv(normed, tokens.rope))
    padding = None
    if steps.window_size:
        padding = QKV(*steps.padding(qkv.q))
    with _as_it_comes(x):
        attention, out = _start_attention(steps, options, tokens, qkv, padding)
    dtype = options.buffer_dtype
    branch = steps.project(out, lambda: normed)
    middle = x + branch
    if steps.merge is not None:
        middle = steps.merge(middle, qkv)
    normed2 = steps.norm2(middle)
    branch2 = steps.mlp(normed2)
    passed, nothing = everything(x), x.new_zeros((), dtype=torch.float32)
    # A gate changes its tensor in place, and x belongs to the host.
    memory = BlockMemory(
        qkv_gate=TokenGate(normed if late else x.clone(), options.reference, dtype),
        attention=attention,
        proj_gate=TokenGate(out, options.reference, dtype),
        proj=TokenBuffer(branch, dtype),
        mlp_gate=TokenGate(normed2 if late else middle, options.reference, dtype),
        mlp=TokenBuffer(branch2, dtype),
        passed=(passed, passed, everything(middle)),
        left_out=(nothing, nothing, nothing),
    )
    return middle + branch2, memory


def _refuse_other_half(dtype: torch.dtype, kept_as: torch.dtype | None) -> None:
    """Refuse bfloat16 with float16: their sum is float32, which the model's norms do not accept.

    Raises:
        ValueError: One is the dtype of the tokens, the other that of the buffers.
    """
    halves = (torch.bfloat16, torch.float16)
    if dtype in halves and kept_as in halves and dtype != kept_as:
        raise ValueError(
            f"Eventful: buffer_dtype={kept_as} but the model's tokens are {dtype}; set "
            f"buffer_dtype=None to keep their dtype."
        )


def step_block(
    steps: BlockSteps,
    options: EventfulOptions,
    tokens: Tokens,
    memory: BlockMemory,
    policy: Policy,
    place: Tensor | None = None,
) -> Steps:
    """Compute a later frame, only for tokens that pass the gates; runs under :func:`in_step`.

    Args:
        steps: Steps of the block.
        options: The same as at the start.
        tokens: Input with the same shape as at the start.
        memory: State from :func:`start_block`; changed in place.
        policy: Selects the tokens that pass each of the three gates.
        place: Tensor (B, N, C) for the result, used if it has the right dtype and nothing merges.

    Returns:
        Output (B, N, C), with fewer tokens if they merge.
    """
    x, late = tokens.x, options.gate_position == "after_norm"
    share_cores(x)
    norm1, norm2 = (steps.norm1, steps.norm2) if late else (None, None)
    look1, look2 = norm1 or _as_is, norm2 or _as_is

    errors, _ = errors_of_sum(memory.qkv_gate.reference, x, None, norm1)
    first = yield Gated(policy, errors)
    left_out1 = memory.qkv_gate.left_out(first, errors)
    passed = _own(look1(first.gather(x)), x)
    memory.qkv_gate.let_through(first, passed, lambda block: look1(x[:, block]))
    normed = passed if late else steps.norm1(passed)
    qkv = yield Wanted(steps.qkv, normed, (_rope_of(tokens, first),), first.everything)
    qkv = QKV(*qkv)

    with _as_it_comes(x):
        attended = memory.attention.take(qkv, first, memory.proj_gate)
    second = yield Gated(policy, attended.errors)
    with _as_it_comes(x):
        left_out2 = memory.proj_gate.left_out(second, attended.errors)
        passed = attended.tokens(second)
        memory.proj_gate.let_through(second, passed, attended.block)
    normed = (lambda: steps.norm1(second.gather(x)),)
    branch = yield Wanted(steps.project, passed, normed, second.everything)
    branch = memory.proj.update(second, branch)

    if steps.merge is not None:
        x, branch = steps.merge(x + branch, None), None
    errors, middle = errors_of_sum(memory.mlp_gate.reference, x, branch, norm2)
    third = yield Gated(policy, errors)
    left_out3 = memory.mlp_gate.left_out(third, errors)
    passed = _own(look2(third.gather(middle)), middle)
    memory.mlp_gate.let_through(third, passed, lambda block: look2(middle[:, block]))
    normed2 = passed if late else steps.norm2(passed)
    branch2 = yield Wanted(steps.mlp, normed2, (), third.everything)
    memory.passed = (first, second, third)
    memory.left_out = (left_out1, left_out2, left_out3)
    fits = place is not None and place.dtype == middle.dtype
    return torch.add(middle, memory.mlp.update(third, branch2), out=place if fits else middle)


def move_block(memory: BlockMemory, scene: Scene, num_prefix_tokens: int) -> None:
    """Follow a movement of the view, before :func:`step_block` of the same frame.

    Args:
        memory: State from :func:`start_block`; changed in place.
        scene: The scene of the stored tokens.
        num_prefix_tokens: Number of tokens before those of the grid.
    """
    now, before = scene.ring, scene.before
    if isinstance(memory.attention, WindowedAttention):
        memory.attention.move(now.first)
        return
    step = (now.first[0] - before.first[0], now.first[1] - before.first[1])
    keys = None
    if not scene.anew:
        keys = now.entered_slots(before, memory.proj.memory.device) + num_prefix_tokens
    memory.attention.move(step, keys)


def _as_is(x: Tensor) -> Tensor:
    return x


def _own(passed: Tensor, x: Tensor) -> Tensor:
    """``passed``, or a copy if it is ``x`` itself, which a gate must not keep."""
    return passed.clone() if passed.data_ptr() == x.data_ptr() else passed


def _start_attention(
    steps: BlockSteps,
    options: EventfulOptions,
    tokens: Tokens,
    qkv: QKV,
    padding: QKV | None,
) -> tuple[GlobalAttention | WindowedAttention, Tensor]:
    """Attention of a first frame, and its state."""
    grid_size, size, dtype = tokens.grid_size, steps.window_size, options.buffer_dtype
    if padding is not None:
        logits = _logits(steps, (size, size))
        return WindowedAttention.start(qkv, padding, logits, grid_size, size, dtype)
    if tokens.segments > 1:
        return WindowedAttention.start_segments(qkv, _logits(steps, None), tokens.segments, dtype)
    return GlobalAttention.start(
        qkv,
        options.attention,
        _logits(steps, grid_size),
        grid_size,
        options.kv_pool_size,
        steps.num_prefix_tokens,
        dtype,
    )


def _logits(steps: BlockSteps, grid_size: tuple[int, int] | None) -> Logits:
    """How queries and keys of a window or grid become logits."""
    rows = None if grid_size is None else steps.rel_pos(grid_size)
    return Logits(steps.scale, None if rows is None else RelPos(*rows), steps.key_bias)


def _rope_of(tokens: Tokens, selection: Selection) -> Tensor | None:
    """Rotary rows of the selected tokens."""
    if tokens.rope is None:
        return None
    return selection.gather(tokens.rope.expand(tokens.x.shape[0], -1, -1, -1))


def _as_it_comes(x: Tensor) -> AbstractContextManager:
    """Disable autocast: the linear layers have chosen the precision, and sums stay float32."""
    return without_autocast(x.device.type)
