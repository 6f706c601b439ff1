"""A block on clips in training: gates as in evaluation, with gradients through passed tokens.

Linear layers process the same tokens as in a token-wise eventful model: all tokens of the first
frame of a clip, and in later frames the tokens that pass. The state lives for one training step and
is never changed in place, so gradients reach the frame in which a result was computed. Gates select
without gradients.

Shapes: B clips of T frames, N tokens, C channels, h heads, D channels of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmvitaccel.core.attention.dense import dense_attention
from mmvitaccel.core.attention.rel_pos import RelPos
from mmvitaccel.core.attention.windows import from_windows, pad_map, to_windows
from mmvitaccel.core.eventful.block import BlockSteps, Tokens
from mmvitaccel.core.eventful.gates.policy import Policy, choose
from mmvitaccel.core.eventful.gates.selection import Selection


@dataclass
class _Gate:
    """Tokens as they last passed (without gradients), and the results of all tokens (with)."""

    reference: Tensor
    results: tuple[Tensor, ...]

    def choose(self, policy: Policy, x: Tensor) -> Selection:
        """Compare with (B, N, C), and store the tokens that pass as the new reference."""
        with torch.no_grad():
            error = torch.linalg.vector_norm((self.reference - x).float(), dim=-1)
            selection = choose(policy, error)
            self.reference = _replaced(self.reference, selection, selection.gather(x))
        return selection

    def take(self, selection: Selection, *new: Tensor) -> tuple[Tensor, ...]:
        """Store the results of the tokens that passed; returns those of all tokens."""
        self.results = tuple(_replaced(old, selection, n) for old, n in zip(self.results, new))
        return self.results


def clip_block(steps: BlockSteps, tokens: Tokens, frames: int, policy: Policy) -> Tensor:
    """Run a block on clips, each with its own state.

    Args:
        steps: Steps of the block.
        tokens: (B * T, N, C), with the frames of a clip next to each other.
        frames: Number T of frames per clip.
        policy: Selects the same number of tokens for every clip.

    Returns:
        (B * T, N, C).

    Raises:
        ValueError: The batch size is not a multiple of ``frames``.
    """
    if len(tokens.x) % frames:
        raise ValueError(
            f"Eventful: a batch of {len(tokens.x)} pictures cannot be split into clips of "
            f"{frames} frames; set the batch size to a multiple of it."
        )
    clips = tokens.x.unflatten(0, (-1, frames))
    gates: tuple[_Gate, _Gate, _Gate] | None = None
    outs = []
    for x in clips.unbind(1):
        normed = steps.norm1(x)
        if gates is None:
            qkv = steps.qkv(normed, tokens.rope)
            out = _attend(steps, qkv, tokens)
            branch = steps.project(out, lambda normed=normed: normed)
            normed2 = steps.norm2(x + branch)
            branch2 = steps.mlp(normed2)
            seen = (normed, out, normed2)
            kept = (qkv, (branch,), (branch2,))
            gates = tuple(_Gate(u.detach(), results) for u, results in zip(seen, kept))
        else:
            branch, branch2 = _later(steps, tokens, policy, gates, x, normed)
        outs.append(x + branch + branch2)
    return torch.stack(outs, 1).flatten(0, 1)


def _later(
    steps: BlockSteps,
    tokens: Tokens,
    policy: Policy,
    gates: tuple[_Gate, _Gate, _Gate],
    x: Tensor,
    normed: Tensor,
) -> tuple[Tensor, Tensor]:
    """The two branches of a later frame, for all its tokens."""
    before, middle, last = gates
    first = before.choose(policy, normed)
    passed = first.gather(normed)
    rope = tokens.rope
    if rope is not None:
        rope = first.gather(rope.expand(len(x), -1, -1, -1))
    qkv = before.take(first, *steps.qkv(passed, rope))
    out = _attend(steps, qkv, tokens)
    second = middle.choose(policy, out)
    new = steps.project(second.gather(out), lambda: second.gather(normed))
    (branch,) = middle.take(second, new)
    normed2 = steps.norm2(x + branch)
    third = last.choose(policy, normed2)
    (branch2,) = last.take(third, steps.mlp(third.gather(normed2)))
    return branch, branch2


def _attend(steps: BlockSteps, qkv: tuple[Tensor, ...], tokens: Tokens) -> Tensor:
    """Attention over all tokens, or within windows if the block has them, (B, N, h * D)."""
    size, grid_size, segments = steps.window_size, tokens.grid_size, tokens.segments
    if segments > 1:
        # (B, h, N, D) -> (B * segments, h, N / segments, D)
        cut = (t.unflatten(2, (segments, -1)).transpose(1, 2).flatten(0, 1) for t in qkv)
        out = dense_attention(*cut, steps.scale, None).transpose(1, 2).flatten(2)
        return out.unflatten(0, (-1, segments)).flatten(1, 2)
    if not size:
        rows = None if grid_size is None else steps.rel_pos(grid_size)
        out = dense_attention(*qkv, steps.scale, None if rows is None else RelPos(*rows))
        return out.transpose(1, 2).flatten(2)
    heads, dim = qkv[0].shape[1], qkv[0].shape[3]
    padding = torch.stack([t.flatten() for t in steps.padding(qkv[0])]).flatten()
    rows = steps.rel_pos((size, size))
    # three times (B, h, N, D) -> (B, H, W, 3 * h * D) -> (windows, size * size, 3 * h * D)
    x = torch.stack([t.transpose(1, 2) for t in qkv], 2).flatten(2).unflatten(1, grid_size)
    windows = to_windows(pad_map(x, size, padding), size).unflatten(2, (3, heads, dim))
    q, k, v = windows.permute(2, 0, 3, 1, 4)
    out = dense_attention(q, k, v, steps.scale, None if rows is None else RelPos(*rows))
    return from_windows(out.transpose(1, 2).flatten(2), size, grid_size).flatten(1, 2)


def _replaced(old: Tensor, selection: Selection, new: Tensor) -> Tensor:
    """A copy of (B, ..., N, C) with the selected tokens replaced."""
    index = selection.index
    index = index.view(len(index), *(1,) * (old.ndim - 3), -1, 1)
    return old.scatter(-2, index.expand_as(new), new.to(old.dtype))
