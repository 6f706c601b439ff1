"""One transformer block with token merging, from the host's own submodules."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from mmvitaccel.adapters.base import BlockInput, BlockSpec
from mmvitaccel.core.attention.dense import fused_attention
from mmvitaccel.core.kernels.openmp_wait import share_cores
from mmvitaccel.core.tome.matcher import Bipartite, Candidates, Matcher, match
from mmvitaccel.core.tome.merge import Matching, merge_weighted, prune_matching
from mmvitaccel.core.tome.schedule import Entry, tokens_to_merge
from mmvitaccel.core.tome.trace import Standing


class MergeOptions(NamedTuple):
    """How tokens are compared and what becomes of them; the defaults are the paper's."""

    proportional_attention: bool = True
    metric: str = "keys"
    matching: Matcher = Bipartite()
    reduction: str = "merge"
    restore: str = "block"


def merge_block(
    block: nn.Module,
    spec: BlockSpec,
    given: BlockInput,
    standing: Standing,
    entry: Entry,
    num_prefix_tokens: int,
    options: MergeOptions,
) -> tuple[Tensor, Standing]:
    """Attention, merge, MLP (section 3.1): tokens (B, N, C) to (B, N - r, C)."""
    x = given.x
    share_cores(x)
    h = spec.norm1(block)(x)
    q, k, v = spec.qkv(block, h, rope_at(given.rope, standing.position))
    mask = standing.key_mask(options.proportional_attention)
    x = x + _attend(block, spec, h, (q, k, v), mask)
    r = tokens_to_merge(entry, x.shape[1], num_prefix_tokens)
    matching = None
    if r > 0:
        given = Candidates(x, standing.size, r, num_prefix_tokens, standing.grid_size)
        matching = match_block(spec.scale(block), given, (q, k, v), options)
    if matching is not None:
        x, size = merge_weighted(x, standing.size, matching)
        standing = standing.merged(matching, size)
    return x + spec.finish2(block, spec.mlp(block, spec.norm2(block)(x))), standing


def _attend(
    block: nn.Module,
    spec: BlockSpec,
    h: Tensor,
    qkv: tuple[Tensor, Tensor, Tensor],
    mask: Tensor | None,
) -> Tensor:
    """The attention branch (B, N, C); the mask is added to the logits."""
    q, k, v = qkv
    mask = None if mask is None else mask.to(q.dtype)  # (B, 1, 1, N)
    out = fused_attention(q, k, v, spec.scale(block), mask, spec.attn_drop(block))
    out = out.transpose(1, 2).flatten(2)  # (B, H, N, D) -> (B, N, H * D)
    return spec.finish1(block, spec.project(block, out, lambda: h))


def match_block(
    scale: float,
    given: Candidates,
    qkv: tuple[Tensor, Tensor, Tensor],
    options: MergeOptions,
) -> Matching | None:
    """Choose what goes: by the metric, or for the contrast by the class token's attention."""
    q, k, v = qkv
    if options.reduction == "prune":
        logits = q[:, :, :1].detach().float() @ k.detach().float().transpose(2, 3) * scale
        attention = logits.softmax(dim=-1).mean(dim=1)[:, 0]  # (B, H, 1, N) -> (B, N)
        return prune_matching(attention, given.r, given.num_prefix_tokens)
    if options.metric != "tokens":
        metric = {"keys": k, "queries": q, "values": v}[options.metric].mean(dim=1)
        given = given._replace(metric=metric)
    return match(options.matching, given)


def rope_at(rope: Tensor | None, position: Tensor | None) -> Tensor | None:
    """Rotary rows of the tokens that are left: a merged token keeps its destination's place."""
    if rope is None or position is None:
        return rope
    batch, left = position.shape
    rope = rope.expand(batch, -1, -1, -1)
    index = position[:, None, :, None].expand(batch, rope.shape[1], left, rope.shape[-1])
    return rope.gather(2, index)
