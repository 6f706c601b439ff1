"""mmcv's pre-norm transformer layers, in a sequence such as a neck's or inside a model."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from mmvitaccel.adapters.base import BlockInput, BlockSpec, Normed, ViTAdapter, named_base

_ATTENTION = ("mmcv.cnn.bricks.transformer.MultiheadAttention",)
_FFN = ("mmcv.cnn.bricks.transformer.FFN",)
_PRE_NORM = ("norm", "self_attn", "norm", "ffn")


def split_heads(attn: nn.MultiheadAttention, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute q, k and v (B, H, M, D) of tokens (B, M, C) with torch's attention layer."""
    qkv = F.linear(h, attn.in_proj_weight, attn.in_proj_bias)
    # (B, M, 3 * H * D) -> (3, B, H, M, D)
    return qkv.unflatten(2, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


def why_not_split(attn: nn.MultiheadAttention) -> str | None:
    """Reason why :func:`split_heads` does not support an attention layer, or None."""
    if attn.in_proj_weight is None or attn.bias_k is not None or attn.add_zero_attn:
        return "its attention has separate projections or additional keys"
    return None


def _enter(
    layer: nn.Module, query: Tensor, key: Tensor = None, value: Tensor = None, **kwargs: Any
) -> BlockInput:
    given = [name for name, value in kwargs.items() if value is not None]
    if given:
        raise ValueError(
            f"{type(layer).__name__} was called with {', '.join(given)}: positions change when "
            "tokens are merged or dropped, so positions and masks of single layers are not "
            "supported; add positions before the first layer."
        )
    first = _attention(layer).batch_first
    return BlockInput(query if first else query.transpose(0, 1))


def _leave(layer: nn.Module, x: Tensor, given: BlockInput) -> Tensor:
    return x if _attention(layer).batch_first else x.transpose(0, 1)


def _attention(layer: nn.Module) -> nn.Module:
    return layer.attentions[0]


def _project(layer: nn.Module, out: Tensor, h: Normed | None) -> Tensor:
    attention = _attention(layer)
    return attention.proj_drop(attention.attn.out_proj(out))


def _mlp(layer: nn.Module, h: Tensor) -> Tensor:
    ffn = layer.ffns[0]
    return ffn.gamma2(ffn.layers(h))


def _attn_drop(layer: nn.Module) -> float:
    return _attention(layer).attn.dropout if layer.training else 0.0


def _refuse(layer: nn.Module) -> str | None:
    if tuple(layer.operation_order) != _PRE_NORM:
        return f"its operation_order is {tuple(layer.operation_order)}; supported is {_PRE_NORM}"
    for part, names in ((layer.attentions[0], _ATTENTION), (layer.ffns[0], _FFN)):
        base = named_base(part, names)
        if base is None or type(part).forward is not base.forward:
            return f"it contains a {type(part).__name__}; supported is {names[0]}"
    if not layer.ffns[0].add_identity:
        return "its FFN does not add the identity"
    return why_not_split(layer.attentions[0].attn)


LAYER = BlockSpec(
    classes=("mmcv.cnn.bricks.transformer.BaseTransformerLayer",),
    num_heads=lambda layer: _attention(layer).attn.num_heads,
    scale=lambda layer: _attention(layer).attn.head_dim ** -0.5,
    attn_drop=_attn_drop,
    norm1=lambda layer: layer.norms[0],
    qkv=lambda layer, h, rope: split_heads(_attention(layer).attn, h),
    project=_project,
    finish1=lambda layer, y: _attention(layer).dropout_layer(y),
    norm2=lambda layer: layer.norms[1],
    mlp=_mlp,
    finish2=lambda layer, y: layer.ffns[0].dropout_layer(y),
    enter=_enter,
    leave=_leave,
    refuse=_refuse,
    bypassed=("attentions.0", "attentions.0.attn", "ffns.0"),
)

ADAPTERS = (
    ViTAdapter(
        name="mmcv TransformerLayerSequence",
        classes=("mmcv.cnn.bricks.transformer.TransformerLayerSequence",),
        blocks=lambda model: list(model.layers),
        specs=(LAYER,),
        prefix=lambda model: (),
        entries={"forward": lambda model: [len(model.layers) - 1]},
        batch_dim=lambda model: 0 if _attention(model.layers[0]).batch_first else 1,
    ),
)
