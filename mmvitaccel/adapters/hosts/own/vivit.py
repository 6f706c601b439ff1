"""This package's ViViT: methods apply to its spatial encoder, one time step at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mmvitaccel.adapters.attach import link
from mmvitaccel.adapters.base import BlockSpec, ViTAdapter
from mmvitaccel.core.eventful.frame import Frame, streams


def _blocks(model: nn.Module) -> Sequence[nn.Module]:
    return list(model.spatial.blocks)


def _qkv(block: nn.Module, h: Tensor, rope: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    attn = block.attn
    # (B, M, 3 * H * D) -> (3, B, H, M, D)
    return attn.qkv(h).unflatten(2, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


def _finish(block: nn.Module, y: Tensor) -> Tensor:
    return block.drop_path(y)


def _steps_in_turn(
    model: nn.Module,
    host: Callable[..., Tensor],
    tokens: Tensor,
    grid_size: tuple[int, int],
) -> Tensor:
    """Override of ``encode_steps``: all clips of a batch form one new stream, in lockstep."""
    if model.spatial.training:
        return host(tokens, grid_size)
    clips, encoded = object(), []
    try:
        for step in tokens.unbind(1):
            with streams([Frame(clips, lockstep=True)]):
                encoded.append(model.encode_step(step, grid_size))
    finally:
        link(model).state.store.drop(clips)
    return torch.stack(encoded, dim=1)  # S of (B, C) -> (B, S, C)


_BLOCK = BlockSpec(
    classes=("mmvitaccel.models.vivit.encoder.Block",),
    num_heads=lambda block: block.attn.num_heads,
    scale=lambda block: block.attn.scale,
    attn_drop=lambda block: 0.0,
    norm1=lambda block: block.norm1,
    qkv=_qkv,
    project=lambda block, out, h: block.attn.proj(out),
    finish1=_finish,
    norm2=lambda block: block.norm2,
    mlp=lambda block, h: block.mlp(h),
    finish2=_finish,
    bypassed=("attn",),
)

ADAPTERS = (
    ViTAdapter(
        name="mmvitaccel ViViT",
        classes=("mmvitaccel.models.vivit.backbone.ViViT",),
        blocks=_blocks,
        specs=(_BLOCK,),
        prefix=lambda model: ("class",),
        # Only the class token is read after the last block, so merged tokens are never restored.
        entries={"encode_step": lambda model: ()},
        clips={"encode_steps": _steps_in_turn},
    ),
)
