"""The layer of mmpretrain's ViTEVA02, with rotary positions of the patches."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmvitaccel.adapters.base import BlockInput, BlockSpec, Grid
from mmvitaccel.adapters.window_map import attention_is
from mmvitaccel.core.attention.rotary import apply_rope, with_identity

_MODULE = "mmpretrain.models.backbones.vit_eva02"


def _enter(layer: nn.Module, x: Tensor, patch_resolution: Grid) -> BlockInput:
    attn, grid_size = layer.attn, tuple(patch_resolution)
    if attn.rope is None:
        return BlockInput(x, grid_size=grid_size)
    prefix = int(attn.with_cls_token)
    if tuple(attn.rope.patch_resolution) != grid_size:
        # It computes the tables of another grid when it is called with that grid
        attn.rope(x.new_zeros(1, 1, x.shape[1] - prefix, attn.head_dims), grid_size)
    rope = torch.cat([attn.rope.freqs_sin, attn.rope.freqs_cos], dim=-1)[None, None]
    return BlockInput(x, with_identity(rope, prefix), grid_size)


def _qkv(layer: nn.Module, h: Tensor, rope: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    attn = layer.attn
    # (B, M, 3 * H * D) -> (3, B, H, M, D)
    q, k, v = attn.qkv(h).unflatten(2, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    if rope is not None:
        q, k = (apply_rope(t, rope).type_as(v) for t in (q, k))
    return q, k, v


def _finish(layer: nn.Module, y: Tensor) -> Tensor:
    return layer.drop_path(y)


LAYER = BlockSpec(
    classes=(f"{_MODULE}.EVA02EndcoderLayer",),
    num_heads=lambda layer: layer.attn.num_heads,
    scale=lambda layer: layer.attn.scale,
    attn_drop=lambda layer: layer.attn.attn_drop.p if layer.training else 0.0,
    norm1=lambda layer: layer.norm1,
    qkv=_qkv,
    project=lambda layer, out, h: layer.attn.proj_drop(layer.attn.proj(out)),
    finish1=_finish,
    norm2=lambda layer: layer.norm2,
    mlp=lambda layer, h: layer.mlp(h),
    finish2=_finish,
    enter=_enter,
    refuse=attention_is([f"{_MODULE}.AttentionWithRoPE"], lambda layer: layer.attn),
    bypassed=("attn", "attn.attn_drop", "attn.rope"),
)
