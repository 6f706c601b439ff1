"""Dense attention with relative positions, in bounded memory.

On a CPU without gradients, a compiled kernel is used if available. Otherwise the bias of all
queries over all keys would need heads x N x N values (805 MB at N = 4096 with 12 heads in single
precision). It is therefore built for one block of query rows at a time, which fits into the cache
of a CPU, and each block uses fused attention.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mmvitaccel.core.attention.rel_pos import PositionTerms, RelPos
from mmvitaccel.core.kernels.attend import attend
from mmvitaccel.core.kernels.operators import can_attend

# Logits of one block. On a CPU 256 rows of 4096 keys: 4 MB in single precision, by measurement.
CPU_BLOCK_LOGITS = 2**20
DEVICE_BLOCK_LOGITS = 2**26

# The operator of fused attention on a CPU, which also returns the log-sum-exp, unlike the public
# function. The operator of torch < 2.2 does not accept a bias.
_FUSED_WITH_LSE = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)


def fused_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    mask: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Torch's fused attention, which every exporter supports.

    Args:
        q: (B, heads, N, D).
        k: (B, heads, K, D).
        v: (B, heads, K, D).
        scale: Factor of the products of q and k.
        mask: Added to the logits, (B, heads or 1, N or 1, K), in the dtype of ``q``; or None.
        dropout: Dropout probability of the attention weights.

    Returns:
        (B, heads, N, D).
    """
    if torch.jit.is_tracing():
        # The exporter of torch 2.1 only supports the default scale
        return F.scaled_dot_product_attention(
            q * (scale * q.shape[-1] ** 0.5), k, v, attn_mask=mask, dropout_p=dropout
        )
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, scale=scale)


def dense_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    rel_pos: RelPos | None = None,
    key_bias: Tensor | None = None,
) -> Tensor:
    """Softmax attention of all queries over all keys.

    Args:
        q: (B, heads, N, D).
        k: (B, heads, K, D).
        v: (B, heads, K, D).
        scale: Factor of the products of q and k, not of the position terms.
        rel_pos: Relative positions of the queries, or None.
        key_bias: Added to all logits of a key, (B, K) float32; only without relative positions.

    Returns:
        (B, heads, N, D). Backward needs no more memory than forward: each block is recomputed.
    """
    if rel_pos is None:
        mask = None if key_bias is None else key_bias[:, None, None].to(q.dtype)
        return fused_attention(q, k, v, scale, mask)
    if not needs_grad(q, k, v, *rel_pos[:2]) and can_attend(q, k, v):
        return attend(q, k, v, scale, *rel_pos)[0]
    return _in_blocks(_attend, (q, k, v, *rel_pos.terms(q)), scale)[0]


def dense_attention_with_lse(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    rel_pos: RelPos | None = None,
    key_bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Like :func:`dense_attention`, with the logarithm of each row's sum of exponentials.

    Returns:
        The output (B, heads, N, D) and the log-sum-exp (B, heads, N), both in single precision and
        without gradients.
    """
    with torch.no_grad():
        if key_bias is not None:
            every = key_bias[:, None, None].expand(*q.shape[:3], -1)  # (B, heads, N, K)
            terms = (every.new_zeros(()).expand(*q.shape[:3], 1), every)
            inputs = (q.float(), k.float(), v.float(), *terms)
            return _in_blocks(_attend_with_lse, inputs, scale)
        if can_attend(q, k, v):
            return attend(q, k, v, scale, *(rel_pos or (None, None, None)), torch.float32)
        q, k, v = q.float(), k.float(), v.float()
        inputs = (q, k, v) if rel_pos is None else (q, k, v, *rel_pos.terms(q))
        return _in_blocks(_attend_with_lse, inputs, scale)


def needs_grad(*tensors: Tensor) -> bool:
    """Whether autograd records operations on the inputs."""
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


def _bias(terms: tuple[Tensor, ...]) -> Tensor | None:
    return PositionTerms(*terms).spread() if terms else None


def _attend(q: Tensor, k: Tensor, v: Tensor, *terms: Tensor, scale: float) -> tuple[Tensor]:
    return (fused_attention(q, k, v, scale, _bias(terms)),)


def _attend_with_lse(
    q: Tensor, k: Tensor, v: Tensor, *terms: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    bias = _bias(terms)
    if _FUSED_WITH_LSE is not None and q.device.type == "cpu" and q.shape[2] > 0:
        return _FUSED_WITH_LSE(q, k, v, attn_mask=bias, scale=scale)
    logits = (q.float() * scale) @ k.float().transpose(-1, -2)
    logits = logits if bias is None else logits.add_(bias)
    lse = logits.logsumexp(-1)
    return (logits.sub_(lse.unsqueeze(-1)).exp_() @ v.float()).to(q.dtype), lse


def _in_blocks(
    attend: Callable[..., tuple[Tensor, ...]], inputs: tuple[Tensor, ...], scale: float
) -> tuple[Tensor, ...]:
    """Split batch, then heads, then query rows, until one block's logits fit the budget."""
    on_cpu = inputs[0].device.type == "cpu"
    budget = CPU_BLOCK_LOGITS if on_cpu else DEVICE_BLOCK_LOGITS
    batch, heads, rows, _ = inputs[0].shape
    per_row = max(inputs[1].shape[2], 1)
    for dim, (length, cost) in enumerate(
        ((batch, heads * rows * per_row), (heads, rows * per_row), (rows, per_row))
    ):
        if length * cost <= budget:
            break
        if length > 1:
            # Blocks of equal size, because a small last one would leave processors idle.
            blocks = -(-length // max(budget // cost, 1))
            step = -(-length // blocks)
            # torch's exporter to ONNX takes the parts of split(step) for equally long
            sizes = [int(min(step, length - first)) for first in range(0, length, step)]
            parts = [t.split(sizes, dim) for t in inputs]
            if dim == 2:  # all rows use all keys and values
                parts[1:3] = [(t,) * len(parts[0]) for t in inputs[1:3]]
            outs = [_in_blocks(attend, part, scale) for part in zip(*parts)]
            return tuple(torch.cat(out, dim) for out in zip(*outs))
    if needs_grad(*inputs):
        return checkpoint(
            attend, *inputs, scale=scale, use_reentrant=False, preserve_rng_state=False
        )
    return attend(*inputs, scale=scale)
