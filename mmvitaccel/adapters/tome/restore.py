"""A transformer block that merges tokens and restores all of them at its end.

For hosts that regroup tokens around the block: windows (ViTDet, RF-DETR) or frames (TimeSformer).
Tokens are merged before attention, by the same keys, so attention, its projection and the MLP
process fewer tokens. Every token then gets the update of its merged token, and the residual keeps
the differences. Every window merges the same number.

In a run of blocks with the same windows, the matching of the first can be used for all: the others
then process merged tokens from the first norm to the end. Merging the output of a block again gives
its merged tokens, so nothing has to be passed from block to block.

Shapes: W windows or frames in the batch (as many as images where attention is global), N tokens
in each, H heads of D channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmvitaccel.adapters.base import BlockInput, BlockSpec
from mmvitaccel.adapters.tome.step import MergeOptions
from mmvitaccel.core.attention.dense import dense_attention, fused_attention
from mmvitaccel.core.attention.rel_pos import RelPos
from mmvitaccel.core.attention.windows import from_windows, pad_map, to_windows
from mmvitaccel.core.tome.attention import merged_attention
from mmvitaccel.core.tome.matcher import Candidates, match
from mmvitaccel.core.tome.merge import Matching, merge, merge_weighted, take, unmerge
from mmvitaccel.core.tome.schedule import Entry, tokens_to_merge
from mmvitaccel.core.tome.trace import Standing


def restore_block(
    block: nn.Module,
    spec: BlockSpec,
    given: BlockInput,
    entry: Entry,
    num_prefix_tokens: int,
    options: MergeOptions,
) -> tuple[Tensor, Standing, Matching | None]:
    """The block on tokens (B, N, C); returns as many, how its windows merged, and what.

    Without an MLP the attention branch alone is returned, for ``spec.leave`` to add. Of several
    sequences behind each other, all prefixes are protected: they come first in what is told of the
    merges.
    """
    if given.segments > 1:
        # (B, segments * N, C) -> (B * segments, N, C)
        apart = given.x.unflatten(1, (given.segments, -1)).flatten(0, 1)
        alone = given._replace(x=apart, sequences=1)
        x, *how = restore_block(block, spec, alone, entry, num_prefix_tokens, options)
        return x.unflatten(0, (-1, given.segments)).flatten(1, 2), *how
    if given.sequences > 1:
        order = _prefixes_first(given.x, given.sequences, num_prefix_tokens)
        ordered = given._replace(x=given.x[:, order], sequences=1)
        prefixes = given.sequences * num_prefix_tokens
        x, *how = restore_block(block, spec, ordered, entry, prefixes, options)
        return x[:, order.argsort()], *how
    windows = _Windows(spec.window_size(block), given)
    h = spec.norm1(block)(given.x)
    qkv = _cut_heads(block, spec, h, given, windows)
    standing = Standing(h.new_ones((len(qkv[0]), qkv[0].shape[2], 1), dtype=torch.float32))
    matching = _match(qkv, h, windows, standing.size, entry, num_prefix_tokens, options)
    if matching is not None:
        standing = standing.merged(matching, merge(standing.size, matching))
    mask = standing.key_mask(options.proportional_attention)  # (W, 1, 1, N - r)
    out = _attend(block, spec, qkv, windows.grid_size, standing, matching, mask)
    out = spec.project(block, out, None)
    x = spec.finish1(block, windows.join(standing.all_tokens(out)))
    if spec.mlp is None:
        return x, standing, matching
    x = given.x + x
    x = x + spec.finish2(block, _mlp(block, spec, x, windows, matching))
    return x, standing, matching


def continue_block(
    block: nn.Module,
    spec: BlockSpec,
    given: BlockInput,
    standing: Standing,
    matching: Matching,
    options: MergeOptions,
) -> Tensor:
    """A later block of a run, on tokens (B, N, C) that merge as in the run's first one.

    Raises:
        ValueError: The windows do not divide the map: each block has padding of its own.
    """
    windows = _Windows(spec.window_size(block), given)
    if windows.size and any(side % windows.size for side in windows.map_size):
        raise ValueError(
            f"ToMe: restore='end' keeps merges over blocks with windows of {windows.size} "
            f"tokens, but a map of {windows.map_size[0]} x {windows.map_size[1]} is padded in "
            f"each block; use a size that is a multiple of the window, or restore='block'."
        )
    tokens = windows.cut(given.x, None)
    ones = tokens.new_ones((*tokens.shape[:2], 1), dtype=torch.float32)
    merged, _ = merge_weighted(tokens, ones, matching)
    q, k, v = spec.qkv(block, spec.norm1(block)(merged), None)
    mask = standing.key_mask(options.proportional_attention)
    rel_pos, terms = _rel_pos(block, spec, windows.grid_size), None
    if rel_pos is not None:
        # A query has terms at each of its tokens' places, of which it takes the mean
        spread = take(q.transpose(1, 2).flatten(2), standing.owners())
        spread = spread.unflatten(2, (q.shape[1], -1)).transpose(1, 2)
        terms = _merge_heads(torch.cat(rel_pos.terms(spread), dim=-1), matching)
    out = _attend_merged(block, spec, (q, k, v), terms, windows.grid_size, standing, mask)
    out = spec.project(block, out, None)
    x = merged + spec.finish1(block, out)
    x = x + spec.finish2(block, spec.mlp(block, spec.norm2(block)(x)))
    return windows.join(tokens + unmerge(x - merged, matching))


def runs_of(blocks: Sequence[nn.Module], specs: Sequence[BlockSpec]) -> list[int]:
    """For each block the first one of its run: of like windows, each with an MLP, in a row."""
    first: list[int] = []
    for index, (block, spec) in enumerate(zip(blocks, specs)):
        like = index > 0 and spec.mlp is not None and specs[index - 1].mlp is not None
        if like and spec.window_size(block) == specs[index - 1].window_size(blocks[index - 1]):
            first.append(first[-1])
        else:
            first.append(index)
    return first


def _prefixes_first(x: Tensor, sequences: int, num_prefix_tokens: int) -> Tensor:
    """Places (N,) in ``x`` (B, N, C): the prefix of each sequence, then the rest of each."""
    places = torch.arange(x.shape[1], device=x.device).unflatten(0, (sequences, -1))
    first = places[:, :num_prefix_tokens].flatten()
    return torch.cat((first, places[:, num_prefix_tokens:].flatten()))


class _Windows:
    """Cut tokens (B, N, C) into windows and back; without windows both do nothing."""

    def __init__(self, window_size: int, given: BlockInput) -> None:
        self.size = window_size
        self.map_size = given.grid_size
        self.grid_size = (window_size, window_size) if window_size else given.grid_size

    def cut(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """(B, N, C) to (W, size * size, C); a token of padding holds (C,), or zeros."""
        if not self.size:
            return x
        return to_windows(pad_map(x.unflatten(1, self.map_size), self.size, padding), self.size)

    def join(self, x: Tensor) -> Tensor:
        """(W, size * size, C) to (B, N, C), without the padding."""
        if not self.size:
            return x
        return from_windows(x, self.size, self.map_size).flatten(1, 2)


def _cut_heads(
    block: nn.Module, spec: BlockSpec, h: Tensor, given: BlockInput, windows: _Windows
) -> list[Tensor]:
    """Queries, keys, values (W, H, N, D) of each window."""
    parts = spec.qkv(block, h, given.rope)
    if not windows.size:
        return list(parts)
    heads = parts[0].shape[1]
    cut = []
    for part, padding in zip(parts, spec.padding(block, parts[0])):
        rows = part.transpose(1, 2).flatten(2)  # (B, H, N, D) -> (B, N, H * D)
        rows = windows.cut(rows, padding.flatten())
        cut.append(rows.unflatten(2, (heads, -1)).transpose(1, 2))
    return cut


def _match(
    qkv: list[Tensor],
    h: Tensor,
    windows: _Windows,
    size: Tensor,
    entry: Entry,
    num_prefix_tokens: int,
    options: MergeOptions,
) -> Matching | None:
    """What merges in each window."""
    q, k, v = qkv
    r = tokens_to_merge(entry, q.shape[2], num_prefix_tokens)
    if r == 0:
        return None
    if options.metric == "tokens":
        metric = windows.cut(h, None)
    else:
        metric = {"keys": k, "queries": q, "values": v}[options.metric].mean(dim=1)
    given = Candidates(metric, size, r, num_prefix_tokens, windows.grid_size)
    return match(options.matching, given)


def _attend(
    block: nn.Module,
    spec: BlockSpec,
    qkv: list[Tensor],
    grid_size: tuple[int, int] | None,
    standing: Standing,
    matching: Matching | None,
    mask: Tensor | None,
) -> Tensor:
    """Attention of the merged tokens, (W, N - r, H * D)."""
    q, k, v = qkv
    rel_pos = _rel_pos(block, spec, grid_size)
    drop, scale = spec.attn_drop(block), spec.scale(block)
    if matching is None and not drop:
        return dense_attention(q, k, v, scale, rel_pos).transpose(1, 2).flatten(2)
    terms = None if rel_pos is None else torch.cat(rel_pos.terms(q), dim=-1)
    if matching is not None:
        q, k, v = (_merge_heads(t, matching) for t in (q, k, v))
        terms = None if terms is None else _merge_heads(terms, matching)
    return _attend_merged(block, spec, (q, k, v), terms, grid_size, standing, mask)


def _attend_merged(
    block: nn.Module,
    spec: BlockSpec,
    qkv: tuple[Tensor, Tensor, Tensor],
    terms: Tensor | None,
    grid_size: tuple[int, int] | None,
    standing: Standing,
    mask: Tensor | None,
) -> Tensor:
    """Attention of tokens that are merged, with the position terms of the queries, if any."""
    q, k, v = qkv
    drop, scale = spec.attn_drop(block), spec.scale(block)
    if terms is None:
        mask = None if mask is None else mask.to(q.dtype)
        out = fused_attention(q, k, v, scale, mask, drop)
    else:
        out = merged_attention(
            q, k, v, scale, terms, standing.owners(), grid_size, mask, drop, standing.has_empty
        )
    return out.transpose(1, 2).flatten(2)


def _rel_pos(block: nn.Module, spec: BlockSpec, grid_size: tuple[int, int] | None) -> RelPos | None:
    rows = None if grid_size is None else spec.rel_pos(block, grid_size)
    return None if rows is None else RelPos(*rows)


def _merge_heads(x: Tensor, matching: Matching) -> Tensor:
    """Mean of what merges, (W, H, N, D) to (W, H, N - r, D)."""
    rows = x.transpose(1, 2).flatten(2)  # (W, N, H * D)
    ones = rows.new_ones((*rows.shape[:2], 1), dtype=torch.float32)
    merged, _ = merge_weighted(rows, ones, matching)
    return merged.unflatten(2, (x.shape[1], -1)).transpose(1, 2)


def _mlp(
    block: nn.Module, spec: BlockSpec, x: Tensor, windows: _Windows, matching: Matching | None
) -> Tensor:
    """The MLP's branch (B, N, C), on merged tokens where those are fewer in spite of padding."""
    if matching is None or matching.kept.numel() >= x.shape[0] * x.shape[1]:
        return spec.mlp(block, spec.norm2(block)(x))
    tokens = windows.cut(x, None)
    ones = tokens.new_ones((*tokens.shape[:2], 1), dtype=torch.float32)
    merged, _ = merge_weighted(tokens, ones, matching)
    return windows.join(unmerge(spec.mlp(block, spec.norm2(block)(merged)), matching))
