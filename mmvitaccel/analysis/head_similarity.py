"""Similarity of the attention heads of a block, which EfficientViT's cascaded groups reduce.

The largest cosine similarity of each head's attention map with that of another head of the block,
averaged over heads and images (arXiv 2305.07027, section 2.2, figure 3).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from mmvitaccel.adapters.base import spec_of
from mmvitaccel.adapters.hosts.find import find_adapter, locate
from mmvitaccel.core.attention.rel_pos import position_terms
from mmvitaccel.core.attention.windows import pad_map, to_windows
from mmvitaccel.errors import UserError
from mmvitaccel.models.efficientvit.attention import KEY_DIMS, CascadedGroupAttention

Report = Callable[[str, Tensor], None]


def head_similarity(maps: Tensor) -> Tensor:
    """Mean over heads of the largest cosine similarity with another head.

    Args:
        maps: (B, heads, N, N), of at least two heads.

    Returns:
        (B,), 1 for heads with equal maps.
    """
    flat = nn.functional.normalize(maps.flatten(2).float(), dim=-1)  # B, heads, N * N
    similar = flat @ flat.transpose(1, 2)
    heads = torch.eye(maps.shape[1], dtype=torch.bool, device=maps.device)
    return similar.masked_fill(heads, -torch.inf).amax(-1).mean(-1)


@torch.no_grad()
def similarity_by_block(model: nn.Module, x: Tensor) -> dict[str, float]:
    """Similarity of the heads in each block of more than one.

    Args:
        model: An EfficientViT, or a model with one transformer that has an adapter.
        x: Images (B, 3, H, W).

    Returns:
        Similarity by block name, in the order of execution, averaged over windows.

    Raises:
        UserError: The model has no supported attention.
    """
    found: dict[str, float] = {}

    def report(name: str, maps: Tensor) -> None:
        if maps.shape[1] > 1:
            found[name] = float(head_similarity(maps).mean())

    with ExitStack() as stack:
        watch(model, report, stack)
        model(x)
    if not found:
        raise UserError(f"{type(model).__name__}: no block has more than one head to compare.")
    return found


def watch(model: nn.Module, report: Report, stack: ExitStack) -> None:
    """Report every block's attention maps until the stack closes.

    Raises:
        UserError: The model has no supported attention.
    """

    def keep(handle: Any) -> None:
        stack.callback(handle.remove)

    cascades = {n: m for n, m in model.named_modules() if isinstance(m, CascadedGroupAttention)}
    for name, attn in cascades.items():
        _watch_cascade(name, attn, report, keep)
    if cascades:
        return
    try:
        _, host = locate(model)
        adapter = find_adapter(host)
        names = {id(module): name for name, module in model.named_modules()}
        for block in adapter.blocks(host):
            spec = spec_of(block, adapter)

            def look(block: nn.Module, args: Any, spec: Any = spec) -> None:
                report(names[id(block)], block_maps(block, spec, *args))

            keep(block.register_forward_pre_hook(look))
    except ValueError as error:
        raise UserError(str(error)) from error


def _watch_cascade(
    name: str, attn: CascadedGroupAttention, report: Report, keep: Callable[[Any], None]
) -> None:
    """Read queries and keys from the outputs of the block's convolutions."""
    queries: list[Tensor] = []
    keys: list[Tensor] = []
    cut = slice(KEY_DIMS, 2 * KEY_DIMS)
    for qkv, dw in zip(attn.qkvs, attn.dws):
        keep(qkv.register_forward_hook(lambda m, args, out: keys.append(out[:, cut])))
        keep(dw.register_forward_hook(lambda m, args, out: queries.append(out)))

    def finish(module: nn.Module, args: Any, out: Tensor) -> None:
        # heads of (B, 16, H, W) -> (B, heads, 16, N)
        q, k = (torch.stack(parts, 1).flatten(3) for parts in (queries, keys))
        logits = q.transpose(-1, -2) @ k * KEY_DIMS**-0.5
        report(name, (logits + attn.attention_bias(*out.shape[2:])).softmax(-1))
        queries.clear()
        keys.clear()

    keep(attn.register_forward_hook(finish))


def block_maps(block: nn.Module, spec: Any, *args: Any) -> Tensor:
    """Attention maps (B * windows, heads, N, N) of a transformer block for its input."""
    given = spec.enter(block, *args)
    h, grid = spec.norm1(block)(given.x), given.grid_size
    side = spec.window_size(block)
    if side:
        # (B, H * W, C) -> (B * windows, side * side, C)
        h = to_windows(pad_map(h.unflatten(1, grid), side), side)
        grid = (side, side)
    if given.segments > 1:
        # (B, segments * N, C) -> (B * segments, N, C)
        h = h.unflatten(1, (given.segments, -1)).flatten(0, 1)
    q, k, _ = spec.qkv(block, h, given.rope)
    logits = q @ k.transpose(-1, -2) * spec.scale(block)
    rows = spec.rel_pos(block, grid)
    if rows is not None:
        logits = logits + position_terms(q, *rows).spread()
    return logits.softmax(-1)
