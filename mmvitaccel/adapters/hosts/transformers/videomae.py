"""VideoMAE, which processes the tokens of a whole clip without a class token."""

from __future__ import annotations

from torch import Tensor, nn

from mmvitaccel.adapters.base import BlockSpec
from mmvitaccel.adapters.hosts.transformers.common import MODELS, adapter, enter, split
from mmvitaccel.adapters.window_map import attention_is

_MODULE = "videomae.modeling_videomae.VideoMAE"


def _attn(block: nn.Module) -> nn.Module:
    return block.attention.attention


def _qkv(block: nn.Module, h: Tensor, rope: Tensor | None) -> tuple[Tensor, ...]:
    attn = _attn(block)
    return split(attn, h, ("query", "key", "value"), attn.num_attention_heads)


def _project(block: nn.Module, out: Tensor, h: object) -> Tensor:
    output = block.attention.output
    return output.dropout(output.dense(out))


def _mlp(block: nn.Module, h: Tensor) -> Tensor:
    return block.output.dropout(block.output.dense(block.intermediate(h)))


_LAYER = BlockSpec(
    classes=(f"{MODELS}.{_MODULE}Layer",),
    num_heads=lambda block: _attn(block).num_attention_heads,
    scale=lambda block: _attn(block).scaling,
    attn_drop=lambda block: _attn(block).dropout_prob if block.training else 0.0,
    norm1=lambda block: block.layernorm_before,
    qkv=_qkv,
    project=_project,
    norm2=lambda block: block.layernorm_after,
    mlp=_mlp,
    enter=enter,
    refuse=attention_is([f"{MODELS}.{_MODULE}SelfAttention"], _attn),
    bypassed=("attention", "attention.attention", "attention.output", "output"),
)

ADAPTERS = (
    adapter(
        "VideoMAE",
        [f"{_MODULE}Model"],
        lambda model: list(model.encoder.layer),
        _LAYER,
        lambda model: (),
        takes_clip=True,
    ),
)
