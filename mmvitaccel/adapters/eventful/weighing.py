"""What a policy that weighs tokens is told: their grid, and the attention that they receive."""

from __future__ import annotations

import math

from mmvitaccel.adapters.eventful.streams.batch import Batch
from mmvitaccel.core.eventful.modes.global_attention import GlobalAttention


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


def note_attention(batch: Batch, index: int, num_blocks: int, num_prefix_tokens: int) -> None:
    """Note how much attention tokens receive in a block, where the policy asks for it.

    Args:
        batch: That has gone through the block.
        index: Of the block.
        num_blocks: Of the model.
        num_prefix_tokens: Tokens before those of the grid.

    Raises:
        ValueError: The block attends within windows, or there is none of that number.
    """
    for block in getattr(batch.policy, "attended_blocks", ()):
        if not -num_blocks <= block < num_blocks:
            raise ValueError(
                f"Eventful: ReceivedAttention(block={block}), and the model has "
                f"{num_blocks} blocks; name one of them."
            )
        if block % num_blocks != index:
            continue
        for stream in filter(None, batch.states):
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
