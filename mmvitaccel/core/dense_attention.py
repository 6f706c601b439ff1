"""Dense attention with relative positions, in bounded memory.

The bias of all queries over all keys would take heads x N x N numbers (805 MB at N = 4096 with 12
heads in single precision). Here it exists for one block of query rows at a time, sized to stay in
the cache on a CPU, and each block goes through fused attention.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mmvitaccel.core.rel_pos import PositionTerms

# Logits of one block. On a CPU 256 rows of 4096 keys: 4 MB in single precision, by measurement.
CPU_BLOCK_LOGITS = 2**20
DEVICE_BLOCK_LOGITS = 2**26


def dense_attention(
    q: Tensor, k: Tensor, v: Tensor, scale: float, terms: PositionTerms | None = None
) -> Tensor:
    """Softmax attention of all queries over all keys.

    Args:
        q: (B, heads, N, D).
        k: (B, heads, K, D).
        v: (B, heads, K, D).
        scale: Multiplies the products of q and k; not the position terms.
        terms: Relative positions of the queries, or None.

    Returns:
        (B, heads, N, D). Backward holds no more than forward: each block is computed again.
    """
    if terms is None:
        return F.scaled_dot_product_attention(q, k, v, scale=scale)
    terms = PositionTerms(terms.height.to(q.dtype), terms.width.to(q.dtype))
    budget = CPU_BLOCK_LOGITS if q.device.type == "cpu" else DEVICE_BLOCK_LOGITS
    return _in_blocks(_attend, (q, k, v, *terms), scale, budget)


def _attend(q: Tensor, k: Tensor, v: Tensor, height: Tensor, width: Tensor, scale: float) -> Tensor:
    bias = PositionTerms(height, width).spread()
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)


def _in_blocks(
    attend: Callable[..., Tensor], inputs: tuple[Tensor, ...], scale: float, budget: int
) -> Tensor:
    """Split batch, then heads, then query rows, until one block's logits fit the budget."""
    batch, heads, rows, _ = inputs[0].shape
    per_row = max(inputs[1].shape[2], 1)
    for dim, (length, cost) in enumerate(
        ((batch, heads * rows * per_row), (heads, rows * per_row), (rows, per_row))
    ):
        if length * cost <= budget:
            break
        if length > 1:
            step = max(budget // cost, 1)
            parts = [t.split(step, dim) for t in inputs]
            if dim == 2:  # keys and values belong to every row
                parts[1:3] = [(t,) * len(parts[0]) for t in inputs[1:3]]
            return torch.cat([_in_blocks(attend, p, scale, budget) for p in zip(*parts)], dim)
    if torch.is_grad_enabled() and any(t.requires_grad for t in inputs):
        return checkpoint(attend, *inputs, scale, use_reentrant=False, preserve_rng_state=False)
    return attend(*inputs, scale)
