"""Attention of merged tokens with relative positions, in bounded memory.

The relative position of two merged tokens is the mean over the pairs of tokens that they contain.
Query terms merge like queries; a key has the mean of the terms at its tokens' rows and columns,
which is a product with the mean of their one-hot rows and columns. Without a compiled kernel, this
product is computed for some heads and query rows at a time.

Shapes: B windows, frames or images; N tokens on a grid of H rows and W columns, K of them left;
h heads of D channels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from mmvitaccel.core.attention.dense import (
    CPU_BLOCK_LOGITS,
    DEVICE_BLOCK_LOGITS,
    fused_attention,
    needs_grad,
)
from mmvitaccel.core.attention.rel_pos import row_and_column
from mmvitaccel.core.kernels.attend import attend_merged
from mmvitaccel.core.kernels.operators import can_attend


def merged_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    terms: Tensor,
    owner: Tensor,
    grid_size: tuple[int, int],
    log_size: Tensor | None = None,
    dropout: float = 0.0,
    has_empty: bool = False,
) -> Tensor:
    """Softmax attention of merged tokens over merged tokens.

    Args:
        q: (B, h, K, D).
        k: (B, h, K, D).
        v: (B, h, K, D).
        scale: Factor of the products of q and k, not of the position terms.
        terms: The queries' position terms, merged like them, (B, h, K, H + W).
        owner: Index of the merged token of each token of the grid, (B, N).
        grid_size: (H, W).
        log_size: Added to the logits (B, 1, 1, K), or None (ToMe, eq. 1).
        dropout: Dropout probability of the attention weights.
        has_empty: Whether there may be keys without tokens, whose ``log_size`` is -inf.

    Returns:
        (B, h, K, D).
    """
    bias = None if log_size is None else log_size[:, 0, 0].float()
    # The kernel divides by the number of tokens of a key, which may be 0.
    in_kernel = not dropout and not has_empty and not needs_grad(q, k, v, terms)
    if in_kernel and can_attend(q, k, v):
        places, starts = _places_by_key(owner, grid_size, k.shape[2])
        return attend_merged(q, k, v, scale, terms.float(), places, starts, bias)
    places = _mean_places(owner, grid_size, k.shape[2]).to(q.dtype)[:, None]
    heads, rows = _block_size(q, k)
    by_head = []
    for q_, k_, v_, t_ in zip(*(part.split(heads, dim=1) for part in (q, k, v, terms))):
        out = []
        for some_q, some_t in zip(q_.split(rows, dim=2), t_.split(rows, dim=2)):
            mask = some_t @ places  # (B, h, rows, H + W) x (B, 1, H + W, K)
            mask = mask if log_size is None else mask + log_size.to(mask.dtype)
            out.append(fused_attention(some_q, k_, v_, scale, mask, dropout))
        by_head.append(torch.cat(out, dim=2))
    return torch.cat(by_head, dim=1)


def _places_by_key(
    owner: Tensor, grid_size: tuple[int, int], num_keys: int
) -> tuple[Tensor, Tensor]:
    """Terms of each token (B, N, 2), grouped by key, and the start of each key (B, K + 1).

    Both int32, for :func:`attend_merged`.
    """
    height, width = grid_size
    sorted_owner, order = owner.sort(dim=1, stable=True)
    y, x = row_and_column(order, width)
    keys = torch.arange(num_keys + 1, device=owner.device).repeat(len(owner), 1)
    starts = torch.searchsorted(sorted_owner, keys)
    return torch.stack([y, x + height], dim=-1).int(), starts.int()


def _mean_places(owner: Tensor, grid_size: tuple[int, int], num_keys: int) -> Tensor:
    """Mean one-hot row and column of each key's tokens, (B, H + W, K)."""
    height, width = grid_size
    y, x = row_and_column(torch.arange(height * width, device=owner.device), width)
    one_hot = torch.cat([F.one_hot(y, height), F.one_hot(x, width)], dim=1).float()  # (N, H + W)
    batch, num_tokens = owner.shape
    total = one_hot.new_zeros(batch, height + width, num_keys)
    index = owner[:, None].expand(-1, height + width, -1)
    total.scatter_add_(2, index, one_hot.t().expand(batch, -1, num_tokens))
    # Each token counts as a row and as a column; the mean without tokens is zero.
    return total / (total.sum(1, keepdim=True) / 2).clamp(min=1)


def _block_size(q: Tensor, k: Tensor) -> tuple[int, int]:
    """Number of heads and query rows whose bias is in memory at a time."""
    budget = CPU_BLOCK_LOGITS if q.device.type == "cpu" else DEVICE_BLOCK_LOGITS
    windows, num_heads, num_rows, _ = q.shape
    per_row = max(windows * k.shape[2], 1)
    heads = min(max(budget // (per_row * num_rows), 1), num_heads)
    return heads, max(budget // (per_row * heads), 1)
