"""Inputs of weighted policies: the grid of tokens, and the attention that they receive."""

from __future__ import annotations

import math

from mmvitaccel.adapters.eventful.streams.batch import Batch
from mmvitaccel.core.eventful.modes.global_attention import GlobalAttention


def grid_of(image: tuple[int, ...] | None, num_tokens: int) -> tuple[int, int] | None:
    """The grid (H, W) of square patches of a picture (..., height, width).

    None if the number of tokens does not match such a grid.
    """
    if not image or len(image) < 2:
        return None
    height, width = image[-2:]
    rows = round(math.sqrt(num_tokens * height / width))
    columns = num_tokens // max(rows, 1)
    same = rows * columns == num_tokens and rows * width == columns * height
    return (rows, columns) if same else None


def note_attention(batch: Batch, index: int, num_blocks: int, num_prefix_tokens: int) -> None:
    """Store the attention that tokens receive in a block, if the policy needs it.

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
                f"Eventful: ReceivedAttention(block={block}), but the model has {num_blocks} "
                f"blocks; select one of them."
            )
        if block % num_blocks != index:
            continue
        for stream in filter(None, batch.states):
            attention = stream.blocks[index].attention
            if not isinstance(attention, GlobalAttention):
                raise ValueError(
                    f"Eventful: ReceivedAttention(block={block}) selects a block with attention "
                    f"within windows, where only neighbours attend to a token; select a global "
                    f"block."
                )
            received = attention.received()[:, num_prefix_tokens:].mean(0)
            order = None if stream.scene is None else stream.scene.order(received.device)
            stream.matters.attended[block] = received if order is None else received[order]
