"""Square windows of a token map, with padding.

Windows are built after the linear layer of queries, keys and values. A padding token is zero after
the first LayerNorm, so its projection is the layer's bias. Padding with the bias after the layer
gives the same result as zero padding before it (ViTDet, arXiv 2203.16527, and its released code),
at the cost of the real tokens only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def padded_grid(grid_size: tuple[int, int], window_size: int) -> tuple[int, int]:
    """The token grid (H, W), enlarged at the bottom and right to whole windows."""
    height, width = grid_size
    return height + -height % window_size, width + -width % window_size


def pad_map(x: Tensor, window_size: int, value: Tensor | None = None) -> Tensor:
    """Pad a token map to whole windows.

    Args:
        x: (B, H, W, C).
        window_size: Side of a window in tokens.
        value: Value (C,) of padding tokens; zeros by default.

    Returns:
        (B, Hp, Wp, C); ``x`` itself if no padding is needed.
    """
    batch, height, width, channels = x.shape
    to_height, to_width = padded_grid((height, width), window_size)
    if (to_height, to_width) == (height, width):
        return x
    padding = (0, 0, 0, to_width - width, 0, to_height - height)
    if value is None:
        return nn.functional.pad(x, padding)
    # Two concatenations would copy the map twice
    out = value.to(x.dtype).expand(batch, to_height, to_width, channels).clone()
    out[:, :height, :width] = x
    return out


def bias_of(layer: nn.Module) -> Tensor | None:
    """Bias of a linear layer, which is a method of a dynamically quantized one."""
    bias = layer.bias
    return bias if bias is None or isinstance(bias, Tensor) else bias()


def to_windows(x: Tensor, window_size: int) -> Tensor:
    """Split a padded map into windows, (B, Hp, Wp, C) -> (B * windows, size * size, C)."""
    batch, height, width, channels = x.shape
    rows, columns = height // window_size, width // window_size
    # (B, Hp, Wp, C) -> (B, rows, size, columns, size, C) -> (B, rows, columns, size, size, C)
    x = x.reshape(batch, rows, window_size, columns, window_size, channels).transpose(2, 3)
    return x.reshape(batch * rows * columns, window_size * window_size, channels)


def from_windows(windows: Tensor, window_size: int, grid_size: tuple[int, int]) -> Tensor:
    """Join windows and remove the padding.

    Args:
        windows: (B * windows, size * size, C), from :func:`to_windows`.
        window_size: Side of a window in tokens.
        grid_size: (H, W) of the map without padding.

    Returns:
        (B, H, W, C).
    """
    to_height, to_width = padded_grid(grid_size, window_size)
    rows, columns = to_height // window_size, to_width // window_size
    # (B * rows * columns, size * size, C) -> (B, rows, columns, size, size, C)
    x = windows.reshape(-1, rows, columns, window_size, window_size, windows.shape[-1])
    x = x.transpose(2, 3).reshape(-1, to_height, to_width, windows.shape[-1])
    return x[:, : grid_size[0], : grid_size[1]]


def window_slots(
    grid_size: tuple[int, int], window_size: int, first: tuple[int, int] = (0, 0)
) -> Tensor:
    """Indices of the tokens in the windows of a padded grid.

    Args:
        grid_size: (H, W) in tokens.
        window_size: Side of a window in tokens.
        first: If the grid is a view of a larger scene: row and column of the scene at the view's
            top left corner. Windows are fixed to the scene, those at all edges are padded, and the
            scene's token (y, x) has the index of (y mod H, x mod W).

    Returns:
        (windows, size * size) int64 in the order of :func:`to_windows`: the index of a token in
        row-major order, or H * W for padding.
    """
    height, width = grid_size
    top, left = (start % window_size for start in first)
    to_height, to_width = padded_grid((top + height, left + width), window_size)
    slots = torch.full((1, to_height, to_width, 1), height * width)
    index = torch.arange(height * width).view(height, width).roll((-first[0], -first[1]), (0, 1))
    slots[0, top : top + height, left : left + width, 0] = index
    return to_windows(slots, window_size)[..., 0]
