"""Pictures of merged tokens, block by block (ToMe, figure 4)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from mmvitaccel.adapters.attach import link
from mmvitaccel.adapters.tome.handle import ToMeHandle
from mmvitaccel.adapters.tome.run import METHOD
from mmvitaccel.core.attention.windows import from_windows
from mmvitaccel.errors import UserError
from mmvitaccel.pictures.text import put_text

_LINE = (20, 20, 20)
_GAP = 4
_TITLE = 18


def patch_grid(transformer: nn.Module, shape: Sequence[int]) -> tuple[int, int, int]:
    """Patches along time, height and width of an input (C, H, W) or (C, T, H, W).

    The transformer's first convolution cuts the patches; incomplete ones count.

    Raises:
        UserError: If it has no convolution.
    """
    for module in transformer.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            sides = shape[-len(module.stride) :]
            grid = [-(-side // step) for side, step in zip(sides, module.stride)]
            frames = shape[1] if len(shape) == 4 and len(grid) == 2 else 1
            return tuple(grid) if len(grid) == 3 else (frames, *grid)
    raise UserError(
        f"{type(transformer).__name__} cuts no patches itself, so there is nothing to draw; name "
        "a backbone."
    )


def token_maps(handle: ToMeHandle, grid: tuple[int, int, int]) -> list[Tensor]:
    """Token index of each patch of the first input, (T, H, W) ints for every block.

    Where a block merges within windows or frames, their tokens are numbered one after another.
    """
    adapter = link(handle.model, METHOD).info
    maps = []
    for block, source in zip(adapter.blocks(handle.model), handle.info.sources):
        prefix = len(adapter.prefix(handle.model))
        owner = source[:, prefix:, prefix:].int().argmax(dim=1)  # (B, N, N0) -> (B, N0)
        parts = _parts(owner.shape[1], grid)
        owner = owner[:parts] + torch.arange(parts)[:, None] * source.shape[1]
        window = link(block, METHOD).info[1].window_size(block)
        if window:
            owner = from_windows(owner[..., None], window, grid[1:])[..., 0]
        maps.append(owner.reshape(grid))
    return maps


def _parts(tokens: int, grid: tuple[int, int, int]) -> int:
    """How many sequences hold the tokens of one input: windows, frames, or 1."""
    frames, height, width = grid
    if tokens == frames * height * width:
        return 1
    if tokens == height * width:
        return frames
    side = round(tokens**0.5)
    return -(-height // side) * -(-width // side)


def draw_tokens(frames: np.ndarray, tokens: Tensor) -> np.ndarray:
    """Draw every token in its patches' mean colour with an outline.

    Args:
        frames: (F, height, width, 3) uint8; F is a multiple of the map's T.
        tokens: (T, H, W).

    Returns:
        (T, height, width, 3) uint8; of several frames in a patch the first is drawn on.
    """
    steps, height, width = frames.shape[0] // tokens.shape[0], *frames.shape[1:3]
    frames = frames[::steps]
    labels = tokens.numpy()
    rows = np.arange(height) * labels.shape[1] // height
    columns = np.arange(width) * labels.shape[2] // width
    labels = labels[:, rows][:, :, columns]  # (T, H, W) -> (T, height, width)
    count = np.bincount(labels.ravel())
    colours = [
        np.bincount(labels.ravel(), frames[..., c].ravel()) / np.maximum(count, 1) for c in range(3)
    ]
    drawn = np.stack([colour[labels] for colour in colours], axis=-1).astype(np.uint8)
    drawn[:, :, 1:][labels[:, :, 1:] != labels[:, :, :-1]] = _LINE
    drawn[:, 1:][labels[:, 1:] != labels[:, :-1]] = _LINE
    return drawn


def picture(frames: np.ndarray, maps: dict[int, Tensor], counts: Sequence[int]) -> np.ndarray:
    """The input, then a row for each block (beside each other for a single image).

    Args:
        frames: (F, height, width, 3) uint8, RGB.
        maps: Block to its map.
        counts: Number of tokens after each block, for the titles.
    """
    steps = frames.shape[0] // next(iter(maps.values())).shape[0]
    rows = [_titled("input", frames[::steps])]
    for block, tokens in maps.items():
        rows.append(_titled(f"block {block}: {counts[block]} tokens", draw_tokens(frames, tokens)))
    across = frames.shape[0] // steps == 1
    gap = np.full((rows[0].shape[0], _GAP, 3) if across else (_GAP, rows[0].shape[1], 3), 255)
    spaced = [part for row in rows for part in (row, gap.astype(np.uint8))][:-1]
    return np.concatenate(spaced, axis=1 if across else 0)


def _titled(title: str, frames: np.ndarray) -> np.ndarray:
    gap = np.full((frames.shape[1], _GAP, 3), 255, np.uint8)
    row = np.concatenate([part for frame in frames for part in (frame, gap)][:-1], axis=1)
    bar = np.full((_TITLE, row.shape[1], 3), 255, np.uint8)
    return np.concatenate([put_text(bar, title, (2, 2), 12, (0, 0, 0)), row])
