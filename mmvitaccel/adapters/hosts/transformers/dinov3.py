"""DINOv3 ViT, with rotary positions of patches but not of class and register tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmvitaccel.adapters.base import BlockInput
from mmvitaccel.adapters.hosts.transformers.common import adapter, enter, layer_spec, split
from mmvitaccel.core.attention.rotary import apply_rope, with_identity

_MODULE = "dinov3_vit.modeling_dinov3_vit.DINOv3ViT"


def _enter(
    block: nn.Module,
    hidden_states: Tensor,
    attention_mask: Tensor | None = None,
    position_embeddings: tuple[Tensor, Tensor] | None = None,
    **kwargs: Any,
) -> BlockInput:
    given = enter(block, hidden_states, attention_mask, **kwargs)
    cos, sin = position_embeddings
    rope = torch.cat([sin, cos], dim=-1)[None, None]  # (N, D) twice -> (1, 1, N, 2 * D)
    return given._replace(rope=with_identity(rope, 1 + block.attention.config.num_register_tokens))


def _qkv(block: nn.Module, h: Tensor, rope: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    attn = block.attention
    q, k, v = split(attn, h, ("q_proj", "k_proj", "v_proj"), attn.num_heads)
    return apply_rope(q, rope, half=True), apply_rope(k, rope, half=True), v


_LAYER = layer_spec(
    [f"{_MODULE}Layer"],
    [f"{_MODULE}Attention"],
    heads="num_heads",
    dropout="dropout",
    norms=("norm1", "norm2"),
    finishes=(
        lambda block, y: block.drop_path(block.layer_scale1(y)),
        lambda block, y: block.drop_path(block.layer_scale2(y)),
    ),
    enter=_enter,
    qkv=_qkv,
)

ADAPTERS = (
    adapter(
        "DINOv3 ViT",
        [f"{_MODULE}Encoder"],
        lambda model: list(model.layer),
        _LAYER,
        lambda model: ("class", *["register"] * model.config.num_register_tokens),
    ),
)
