"""Token merging, "Token Merging: Your ViT But Faster" (ICLR 2023), sections 3 and C.

A block of a vision transformer returns fewer tokens than it received: similar tokens are merged
between attention and MLP. Shapes: B batch, N tokens, r merged away, C channels, N0 patches of
the input (with prefix tokens).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmvitaccel.core.attention.dense import needs_grad
from mmvitaccel.core.kernels.merge import match_tokens, merge_tokens
from mmvitaccel.core.kernels.operators import can_attend, can_run
from mmvitaccel.core.torch_modes import without_autocast


class Matching(NamedTuple):
    """The tokens of a sequence that merge, as positions.

    Attributes:
        kept: The kept tokens in their new order (B, N - r).
        src: The tokens merged away (B, r).
        dst: Destination of each, a position among the kept tokens (B, r).
        live: (B, r) bool, the tokens of ``src`` that merge if images merge different numbers; None
            for all. Surplus positions of an image in ``kept`` are then empty: their size is 0, and
            no owner points there.
        num_tokens: Number N of tokens, if ``live`` is given.
        drops: Whether tokens in ``src`` are dropped instead of merged; ``dst`` is then only used by
            :func:`unmerge`.
        grid_size: Grid of the kept tokens after the prefix, if they form one.
        owner: Result of :func:`owner` (B, N), if known.
    """

    kept: Tensor
    src: Tensor
    dst: Tensor
    live: Tensor | None = None
    num_tokens: int | None = None
    drops: bool = False
    grid_size: tuple[int, ...] | None = None
    owner: Tensor | None = None


def max_r(num_tokens: int, num_prefix_tokens: int = 0) -> int:
    """Largest number of tokens that a block can merge: half of the unprotected ones."""
    return max(num_tokens - num_prefix_tokens, 0) // 2


def first_of_sets(num_prefix_tokens: int) -> tuple[int, int]:
    """First position of set A (even) and of set B (odd) after the prefix."""
    p = num_prefix_tokens
    return p + p % 2, p + 1 - p % 2


def at_least_single(metric: Tensor) -> Tensor:
    """The metric without gradients, at least in float32."""
    # Half precision causes ties and cannot represent an epsilon of 1e-12.
    return metric.detach().to(torch.promote_types(metric.dtype, torch.float32))


def comparable(metric: Tensor, similarity: str = "cosine") -> Tensor:
    """Tokens (B, N, D) whose products are their similarities, at least float32."""
    metric = at_least_single(metric)
    # A zero (padding) token stays zero.
    return F.normalize(metric, dim=-1) if similarity == "cosine" else metric


def bipartite_soft_matching(
    metric: Tensor, r: int, num_prefix_tokens: int = 0, similarity: str = "cosine"
) -> Matching:
    """Match tokens of set A (even positions) to set B (odd) and pick the r best edges (3.2).

    Prefix tokens (class, distillation, registers) are in neither set: none is merged away or
    merged into, and they stay in front. Equal similarities merge in order of position.

    Args:
        metric: Features to compare, by default the keys' mean over heads (B, N, D).
        r: Tokens to merge, from 1 to :func:`max_r`.
        num_prefix_tokens: Number of protected leading tokens.
        similarity: ``cosine``, or ``dot`` (the paper's ablation).

    Raises:
        ValueError: r is out of range.
    """
    p, n = num_prefix_tokens, metric.shape[1]
    if not 0 < r <= max_r(n, p):
        raise ValueError(f"r={r}: of {n} tokens, {p} protected, 1 to {max_r(n, p)} can merge.")
    first_a, first_b = first_of_sets(p)
    with torch.no_grad(), without_autocast(metric.device.type):
        compared = at_least_single(metric)
        if compared.dtype == torch.float32 and can_attend(compared):
            *found, owners = match_tokens(compared[:, None], r, p, similarity == "cosine")
            return Matching(*found, owner=owners)
        metric = comparable(metric, similarity)
        a, b = metric[:, first_a::2], metric[:, first_b::2]
        best, edge = (a @ b.transpose(1, 2)).max(dim=-1)  # (B, |A|, |B|) -> (B, |A|)
        order = ranked(best)
        stay_a = order[:, r:].sort(dim=-1).values
        batch, size_a = best.shape
        at = torch.arange(n, device=metric.device).expand(batch, n)
        kept = torch.cat([at[:, :p], first_a + 2 * stay_a, at[:, first_b::2]], dim=1)
        dst = p + size_a - r + edge.gather(1, order[:, :r])
        return Matching(kept, first_a + 2 * order[:, :r], dst)


def prune_matching(importance: Tensor, r: int, num_prefix_tokens: int) -> Matching:
    """Pruning, for comparison: drop the r tokens of least importance (B, N), keep the order.

    For :func:`unmerge`, dropped tokens point to the first token (the class token).
    """
    p = num_prefix_tokens
    order = ranked(-importance[:, p:].detach()) + p
    prefix = torch.arange(p, device=order.device).expand(order.shape[0], p)
    src = order[:, :r]
    kept = torch.cat([prefix, order[:, r:].sort(dim=-1).values], dim=1)
    return Matching(kept, src, torch.zeros_like(src), drops=True)


def ranked(x: Tensor) -> Tensor:
    """Positions of values (B, N) in descending order, stable for equal values."""
    if torch.onnx.is_in_onnx_export():
        # ONNX has no stable sort, but its TopK is stable.
        return x.topk(x.shape[1], dim=-1).indices
    return x.argsort(dim=-1, descending=True, stable=True)


def _rows(index: Tensor, num_tokens: int) -> Tensor:
    """Positions (B, M) as rows of a flattened (B * N, C)."""
    first = torch.arange(index.shape[0], device=index.device) * num_tokens
    return (index + first[:, None]).flatten()


def take(x: Tensor, index: Tensor) -> Tensor:
    """Tokens (B, M, C) of x (B, N, C) at positions (B, M)."""
    # Copying whole rows is about ten times faster on a CPU than gather on (B, M, C).
    rows = x.flatten(0, 1).index_select(0, _rows(index, x.shape[1]))  # (B, N, C) -> (B * M, C)
    return rows.view(*index.shape, x.shape[-1])


def _add_at(x: Tensor, index: Tensor, values: Tensor) -> Tensor:
    """Add values (B, r, C) to x (B, N, C) at positions (B, r); may change x."""
    if torch.onnx.is_in_onnx_export():
        # Exporters convert index_add_ to an assignment, which is wrong for repeated positions.
        return x.scatter_add(1, index[..., None].expand_as(values), values)
    x.flatten(0, 1).index_add_(0, _rows(index, x.shape[1]), values.flatten(0, 1))
    return x


def _apart(x: Tensor, matching: Matching) -> tuple[Tensor, Tensor]:
    """Kept tokens before merging (B, K, C), and merged tokens (B, r, C)."""
    moved = take(x, matching.src)
    if matching.live is None:
        return take(x, matching.kept), moved
    moved = moved * matching.live[..., None]
    left = x.scatter_add(1, matching.src[..., None].expand_as(moved), -moved)
    return take(left, matching.kept), moved


def merge(x: Tensor, matching: Matching) -> Tensor:
    """Merge tokens by summing: (B, N, C) to (B, N - r, C)."""
    if matching.drops:
        return take(x, matching.kept)
    kept, moved = _apart(x, matching)
    return _add_at(kept, matching.dst, moved)


def merge_weighted(x: Tensor, size: Tensor, matching: Matching) -> tuple[Tensor, Tensor]:
    """Merge tokens into means weighted by size, and sum their sizes (section 3.2).

    Args:
        x: Tokens (B, N, C).
        size: Patches in each token (B, N, 1) float32; 0 for an empty position.
        matching: The tokens that merge.

    Returns:
        Tokens (B, N - r, C) with the dtype of x, and sizes (B, N - r, 1).
    """
    plain = matching.live is None and not matching.drops and x.dtype == torch.float32
    if plain and not needs_grad(x, size) and can_run(x, size):
        return merge_tokens(x, size, matching.kept, matching.src, matching.dst)
    new_size = merge(size, matching)
    if matching.drops:
        return take(x, matching.kept), new_size
    size_kept, size_moved = _apart(size, matching)
    whole = new_size if matching.live is None else new_size.clamp(min=1)
    # Weights are at most 1, because sums weighted by size could overflow float16.
    share_kept = size_kept / whole
    share_src = size_moved / take(whole, matching.dst)
    merged = take(x, matching.kept) * share_kept.to(x.dtype)
    return _add_at(merged, matching.dst, take(x, matching.src) * share_src.to(x.dtype)), new_size


def owner(matching: Matching) -> Tensor:
    """New index of each previous token (B, N)."""
    if matching.owner is not None:
        return matching.owner
    batch, left = matching.kept.shape
    places = torch.arange(left, device=matching.kept.device).expand(batch, left)
    if matching.live is None:
        where = matching.kept.new_empty(batch, left + matching.src.shape[1])
        return where.scatter_(1, matching.kept, places).scatter_(1, matching.src, matching.dst)
    where = places_of(matching.kept, matching.num_tokens)
    at = where.gather(1, matching.src).where(~matching.live, matching.dst)
    return where.scatter_(1, matching.src, at)


def places_of(kept: Tensor, num_tokens: int) -> Tensor:
    """Index in ``kept`` (B, K) of each of N tokens (B, N), 0 for tokens that are not in it."""
    places = torch.arange(kept.shape[1], device=kept.device).expand_as(kept)
    return kept.new_zeros(len(kept), num_tokens).scatter_(1, kept, places)


def unmerge(x: Tensor, matching: Matching) -> Tensor:
    """Give every previous token the value of its merged token (section 3.4, dense tasks)."""
    return take(x, owner(matching))


def source_of(owner_of_patch: Tensor, num_tokens: int) -> Tensor:
    """Source (B, N, N0), true if input patch N0 is in token N, from owners (B, N0)."""
    tokens = torch.arange(num_tokens, device=owner_of_patch.device)
    return owner_of_patch[:, None, :] == tokens[None, :, None]


def log_size(size: Tensor) -> Tensor:
    """Proportional attention's additive mask (B, 1, 1, N), float32 (eq. 1)."""
    return size.float().log().squeeze(-1)[:, None, None, :]
