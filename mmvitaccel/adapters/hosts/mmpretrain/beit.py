"""mmpretrain's BEiT without relative positions; the released models have them and are refused."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmvitaccel.adapters.base import BlockInput, BlockSpec, ViTAdapter
from mmvitaccel.adapters.window_map import attention_is

_MODELS = "mmpretrain.models"


def _enter(layer: nn.Module, x: Tensor, rel_pos_bias: Tensor | None) -> BlockInput:
    return BlockInput(x)


def _qkv(layer: nn.Module, h: Tensor, rope: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    attn = layer.attn
    if attn.bias == "qv_bias":  # keys have none
        bias = torch.cat([attn.q_bias, torch.zeros_like(attn.v_bias), attn.v_bias])
        qkv = F.linear(h, attn.qkv.weight, bias)
    else:
        qkv = attn.qkv(h)
    # (B, M, 3 * H * D) -> (3, B, H, M, D)
    return qkv.unflatten(2, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


def _finish(number: int):
    def finish(layer: nn.Module, y: Tensor) -> Tensor:
        gamma = getattr(layer, f"gamma_{number}")
        return layer.drop_path(y if gamma is None else gamma * y)

    return finish


def _refuse(model: nn.Module) -> str | None:
    if model.rel_pos_bias is not None or any(layer.attn.use_rel_pos_bias for layer in model.layers):
        return (
            "its attention adds a bias for each pair of positions (use_rel_pos_bias), and merged "
            "tokens have no single position"
        )
    return None


_LAYER = BlockSpec(
    classes=(f"{_MODELS}.backbones.beit.BEiTTransformerEncoderLayer",),
    num_heads=lambda layer: layer.attn.num_heads,
    scale=lambda layer: layer.attn.scale,
    attn_drop=lambda layer: layer.attn.attn_drop.p if layer.training else 0.0,
    norm1=lambda layer: layer.ln1,
    qkv=_qkv,
    project=lambda layer, out, h: layer.attn.proj_drop(layer.attn.proj(out)),
    finish1=_finish(1),
    norm2=lambda layer: layer.ln2,
    mlp=lambda layer, h: layer.ffn(h),
    finish2=_finish(2),
    enter=_enter,
    refuse=attention_is([f"{_MODELS}.utils.attention.BEiTAttention"], lambda layer: layer.attn),
    bypassed=("attn", "attn.attn_drop"),
)

ADAPTERS = (
    ViTAdapter(
        name="mmpretrain BEiTViT",
        classes=(f"{_MODELS}.backbones.beit.BEiTViT",),
        blocks=lambda model: list(model.layers),
        specs=(_LAYER,),
        prefix=lambda model: () if model.cls_token is None else ("class",),
        entries={"forward": lambda model: model.out_indices},
        refuse=_refuse,
    ),
)
