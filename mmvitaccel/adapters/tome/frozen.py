"""Merging in an eventful model: matched in completely computed frames and kept until the next.

Gates store merged tokens, so the same tokens must merge in every frame. They are matched in a
completely computed frame, as by ToMe alone; later frames merge in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmvitaccel.adapters.attach import link
from mmvitaccel.adapters.base import BlockSpec, ViTAdapter
from mmvitaccel.adapters.tome.run import METHOD, ToMeState
from mmvitaccel.adapters.tome.step import match_block, rope_at
from mmvitaccel.core.tome.matcher import Candidates, Matcher
from mmvitaccel.core.tome.merge import Matching, merge_weighted
from mmvitaccel.core.tome.schedule import tokens_to_merge
from mmvitaccel.core.tome.threshold import Threshold
from mmvitaccel.core.tome.trace import Standing, Trace


def why_not_frozen(
    adapter: ViTAdapter,
    specs: Sequence[BlockSpec],
    matching: Matcher,
    kv_pool_size: int,
    motion: object | None,
) -> str | None:
    """Reason why ToMe and Eventful cannot be combined on a model, or None."""
    if motion is not None:
        return f"motion={motion!r} keeps tokens on the scene, where merged ones have no place"
    if any(spec.keeps_grid for spec in specs):
        return (
            f"the blocks of {adapter.name} return all tokens (windows, frames), so gates would "
            f"get no merged tokens"
        )
    if isinstance(matching, Threshold):
        return (
            f"{matching!r} merges a different number in each picture, but streams of a batch "
            f"must have the same number of tokens; use a matching that merges r"
        )
    if kv_pool_size > 1:
        return f"kv_pool_size={kv_pool_size} needs the token grid, but merged tokens have none"
    return None


class Frozen(NamedTuple):
    """Merges of a block's tokens.

    Attributes:
        before: State of the merges before the block.
        matching: Matching in the block, or None.
        after: State of the merges after the block.
    """

    before: Standing
    matching: Matching | None
    after: Standing

    def owners(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Where each first token is, for each gate (B, N0); None while nothing has merged."""
        return self.before.owner, self.before.owner, self.after.owner

    def merged(self, x: Tensor) -> Tensor:
        """Tokens (B, N, C) as they merge, (B, K, C)."""
        if self.matching is None:
            return x
        return merge_weighted(x, self.before.size, self.matching)[0]


class FrozenBlock:
    """One block in a pass of ToMe, for a method that runs the block in its place.

    Args:
        block: The host's block.
        spec: Its record.
        state: Of ToMe on the model.
        trace: The pass.
        index: The block's number.
    """

    def __init__(
        self, block: nn.Module, spec: BlockSpec, state: ToMeState, trace: Trace, index: int
    ) -> None:
        self.block, self.spec, self.state, self.trace, self.index = (
            block, spec, state, trace, index
        )  # fmt: skip

    def standing(self, x: Tensor, grid_size: tuple[int, ...] | None) -> Standing:
        """How the tokens x (B, N, C) stand in front of the first block."""
        size = x.new_ones((*x.shape[:2], 1), dtype=torch.float32)
        return Standing(size, grid_size=grid_size)

    def first_tokens(self, frozen: Sequence[Frozen]) -> int:
        """Tokens in front of the first block, of each frame."""
        return frozen[0].after.owners().shape[1]

    def key_bias(self, before: Standing) -> Tensor | None:
        """What proportional attention adds to each key's logits (B, N), or None."""
        mask = before.key_mask(self.state.options.proportional_attention)
        return None if mask is None else mask[:, 0, 0]

    def rope(self, rope: Tensor | None, before: Standing) -> Tensor | None:
        """Rotary rows of the tokens that are there."""
        return rope_at(rope, before.position)

    def decide(self, before: Standing, x: Tensor, qkv: tuple[Tensor, Tensor, Tensor]) -> Frozen:
        """What merges of a whole frame's tokens x (B, N, C) between attention and MLP."""
        state, matching, after = self.state, None, before
        prefix = state.num_prefix_tokens
        r = tokens_to_merge(self.trace.schedule[self.index], x.shape[1], prefix)
        if r > 0:
            given = Candidates(x, before.size, r, prefix, before.grid_size)
            matching = match_block(self.spec.scale(self.block), given, qkv, state.options)
        if matching is not None:
            after = before.merged(matching, merge_weighted(x, before.size, matching)[1])
        return Frozen(before, matching, after)

    def leave(self, frozen: Sequence[Frozen], outs: Sequence[Tensor]) -> list[Tensor]:
        """Tokens behind the block, each (b, K, C), unmerged where the host reads all of them.

        Raises:
            ValueError: They are not equally many.
        """
        if len({out.shape[1] for out in outs}) > 1:
            matching = self.state.options.matching
            raise ValueError(
                f"ToMe: {type(matching).__name__} left {[out.shape[1] for out in outs]} tokens of "
                "the streams of a batch, and together with Eventful each must keep equally many; "
                "merge r of them, or give one stream at a time."
            )
        after = [each.after for each in frozen]
        self.trace.behind[self.index] = after[0] if len(after) == 1 else _together(after)
        if self.index in self.trace.full_at:
            return [each.all_tokens(out) for each, out in zip(after, outs)]
        return list(outs)


def frozen_block(block: nn.Module, spec: BlockSpec) -> FrozenBlock | None:
    """The block's part in the pass of ToMe that runs in this thread, or None."""
    found = link(block, METHOD)
    trace = None if found is None else found.state.traces.active
    return None if trace is None else FrozenBlock(block, spec, found.state, trace, found.info[0])


def _together(standings: Sequence[Standing]) -> Standing:
    """Those of a batch from those of its streams."""

    def joined(part: Callable[[Standing], Tensor | None]) -> Tensor | None:
        parts = [part(each) for each in standings]
        return None if parts[0] is None else torch.cat(parts)

    return Standing(
        torch.cat([each.size for each in standings]),
        joined(lambda each: each.position),
        joined(lambda each: each.owner),
        grid_size=standings[0].grid_size,
    )
