"""ToMe on an eventful model: later frames merge like the last completely computed one."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from mmvitaccel.adapters.tome.frozen import Frozen, FrozenBlock
from mmvitaccel.core.eventful.block import BlockMemory, BlockSteps, Tokens
from mmvitaccel.core.eventful.modes.mode import QKV


class MergedFrames:
    """Merges of the frames of a batch in one block.

    Args:
        merging: The block.
        before: The merges in the previous block; None for the first.
        count: Number of frames.

    Attributes:
        frozen: Merges of each frame, after its tokens were merged.
    """

    def __init__(self, merging: FrozenBlock, before: list[Frozen] | None, count: int) -> None:
        self.merging, self.before = merging, before
        self.frozen: list[Frozen | None] = [None] * count

    def taken(
        self, i: int, steps: BlockSteps, tokens: Tokens, memory: BlockMemory | None
    ) -> tuple[BlockSteps, Tokens]:
        """Steps and tokens of a frame, which is matched if it has no state."""
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
