"""mmaction2's video transformers: VisionTransformer (VideoMAE) and TimeSformer."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmvitaccel.adapters.base import BlockInput, BlockSpec, ViTAdapter, named_base
from mmvitaccel.adapters.hosts.mmcv.layers import LAYER, split_heads, why_not_split

_ATTENTION = "mmaction.models.backbones.vit_mae.Attention"


def _mae_qkv(block: nn.Module, h: Tensor, rope: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    attn = block.attn
    bias = None
    if hasattr(attn, "q_bias"):  # keys have none
        bias = torch.cat([attn.q_bias, torch.zeros_like(attn.v_bias), attn.v_bias])
    qkv = F.linear(h, attn.qkv.weight, bias)
    # (B, M, 3 * H * D) -> (3, B, H, M, D)
    return qkv.unflatten(2, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


def _mae_finish(number: int):
    def finish(block: nn.Module, y: Tensor) -> Tensor:
        gamma = getattr(block, f"gamma_{number}", None)
        return block.drop_path(y if gamma is None else gamma * y)

    return finish


def _mae_refuse(block: nn.Module) -> str | None:
    base = named_base(block.attn, [_ATTENTION])
    if base is None or type(block.attn).forward is not base.forward:
        return f"its attention is a {type(block.attn).__name__}; supported is {_ATTENTION}"
    return None


_MAE_BLOCK = BlockSpec(
    classes=("mmaction.models.backbones.vit_mae.Block",),
    num_heads=lambda block: block.attn.num_heads,
    scale=lambda block: block.attn.scale,
    attn_drop=lambda block: block.attn.attn_drop.p if block.training else 0.0,
    norm1=lambda block: block.norm1,
    qkv=_mae_qkv,
    project=lambda block, out, h: block.attn.proj_drop(block.attn.proj(out)),
    finish1=_mae_finish(1),
    norm2=lambda block: block.norm2,
    mlp=lambda block, h: block.mlp(h),
    finish2=_mae_finish(2),
    refuse=_mae_refuse,
    bypassed=("attn", "attn.attn_drop"),
)


def _spatial_enter(
    block: nn.Module, query: Tensor, key: Any = None, value: Any = None, *args: Any, **kwargs: Any
) -> BlockInput:
    """Move frames into the batch: (B, 1 + P * T, C) -> (B * T, 1 + P, C)."""
    frames = block.num_frames
    patches = query[:, 1:].unflatten(1, (-1, frames)).transpose(1, 2)  # (B, T, P, C)
    class_token = query[:, None, :1].expand(-1, frames, -1, -1)  # (B, T, 1, C)
    return BlockInput(torch.cat([class_token, patches], dim=2).flatten(0, 1), extra=query)


def _spatial_leave(block: nn.Module, y: Tensor, given: BlockInput) -> Tensor:
    """Add the output of the branch (B * T, 1 + P, C), averaging the class token over frames."""
    y = y.unflatten(0, (-1, block.num_frames))  # (B, T, 1 + P, C)
    patches = y[:, :, 1:].transpose(1, 2).flatten(1, 2)  # (B, P * T, C)
    return given.extra + torch.cat([y[:, :, 0].mean(dim=1, keepdim=True), patches], dim=1)


_SPATIAL_ATTENTION = BlockSpec(
    classes=("mmaction.models.common.transformer.DividedSpatialAttentionWithNorm",),
    num_heads=lambda block: block.attn.num_heads,
    scale=lambda block: block.attn.head_dim**-0.5,
    attn_drop=lambda block: block.attn.dropout if block.training else 0.0,
    norm1=lambda block: block.norm,
    qkv=lambda block, h, rope: split_heads(block.attn, h),
    project=lambda block, out, h: block.proj_drop(block.attn.out_proj(out)),
    finish1=lambda block, y: block.dropout_layer(y),
    enter=_spatial_enter,
    leave=_spatial_leave,
    keeps_grid=True,
    refuse=lambda block: why_not_split(block.attn),
    bypassed=("attn",),
)


def _timesformer_blocks(model: nn.Module) -> list[nn.Module]:
    layers = list(model.transformer_layers.layers)
    if model.attention_type == "divided_space_time":
        return [layer.attentions[1] for layer in layers]
    return layers


ADAPTERS = (
    ViTAdapter(
        name="mmaction2 VisionTransformer",
        classes=("mmaction.models.backbones.vit_mae.VisionTransformer",),
        blocks=lambda model: list(model.blocks),
        specs=(_MAE_BLOCK,),
        prefix=lambda model: (),
        entries={"forward": lambda model: [len(model.blocks) - 1]},
        takes_clip=True,
        also=("VideoMAE",),
    ),
    ViTAdapter(
        name="mmaction2 TimeSformer",
        classes=("mmaction.models.backbones.timesformer.TimeSformer",),
        blocks=_timesformer_blocks,
        specs=(_SPATIAL_ATTENTION, LAYER),
        prefix=lambda model: ("class",),
        entries={"forward": lambda model: [len(model.transformer_layers.layers) - 1]},
        takes_clip=True,
    ),
)
