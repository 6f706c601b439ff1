"""RF-DETR's DINOv2, whose windows are part of the batch.

The W * W windows of an image are separate sequences, each with its own class token and registers in
front. Most blocks use attention within windows. The others concatenate the windows of an image to
one sequence with W * W prefixes. For the methods, an image is one sequence in all blocks, because
streams and budgets belong to images.
"""

from __future__ import annotations

import warnings
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from torch import Tensor, nn

from mmvitaccel.adapters.base import BlockInput, BlockSpec, ViTAdapter, class_name
from mmvitaccel.adapters.window_map import attention_is

#: The version of rfdetr that the adapter was tested with.
TESTED = "1.11.2"
_MODULE = "rfdetr.models.backbone.dinov2_with_windowed_attn"
_PLAIN, _FUSED = (f"{_MODULE}.Dinov2WithRegisters{kind}" for kind in ("", "Sdpa"))


def _attn(block: nn.Module) -> nn.Module:
    return block.attention.attention


def _attn_drop(block: nn.Module) -> float:
    attn = _attn(block)
    # Fused attention has the probability as a number, the other one as a layer
    return getattr(attn, "attention_probs_dropout_prob", attn.dropout.p) if block.training else 0.0


def _qkv(block: nn.Module, h: Tensor, rope: Tensor | None) -> tuple[Tensor, ...]:
    attn = _attn(block)
    parts = (layer(h) for layer in (attn.query, attn.key, attn.value))
    return tuple(p.unflatten(2, (attn.num_attention_heads, -1)).transpose(1, 2) for p in parts)


def _enter(
    block: nn.Module,
    hidden_states: Tensor,
    output_attentions: bool = False,
    run_full_attention: bool = False,
) -> BlockInput:
    if output_attentions:
        raise ValueError(
            f"{class_name(block)} was called with output_attentions, but attention weights are not "
            "available for windows; call the model without."
        )
    windows = block.num_windows**2
    # (B * windows, N, C) -> (B, windows * N, C)
    x = hidden_states.unflatten(0, (-1, windows)).flatten(1, 2)
    return BlockInput(x, sequences=windows, apart=not run_full_attention)


def _leave(block: nn.Module, x: Tensor, given: BlockInput) -> tuple[Tensor]:
    return (x.unflatten(1, (given.sequences, -1)).flatten(0, 1),)


def _refuse_block(block: nn.Module) -> str | None:
    outer = attention_is([f"{kind}Attention" for kind in (_PLAIN, _FUSED)], lambda b: b.attention)
    inner = attention_is([f"{kind}SelfAttention" for kind in (_PLAIN, _FUSED)], _attn)
    return outer(block) or inner(block)


_LAYER = BlockSpec(
    classes=(f"{_MODULE}.WindowedDinov2WithRegistersLayer",),
    num_heads=lambda block: _attn(block).num_attention_heads,
    scale=lambda block: _attn(block).attention_head_size ** -0.5,
    attn_drop=_attn_drop,
    norm1=lambda block: block.norm1,
    qkv=_qkv,
    project=lambda block, out, h: block.attention.output(out, h),
    finish1=lambda block, y: block.drop_path(block.layer_scale1(y)),
    norm2=lambda block: block.norm2,
    mlp=lambda block, h: block.mlp(h),
    finish2=lambda block, y: block.drop_path(block.layer_scale2(y)),
    enter=_enter,
    leave=_leave,
    keeps_grid=True,
    refuse=_refuse_block,
    bypassed=("attention", "attention.attention", "attention.attention.dropout"),
)


def _blocks(model: nn.Module) -> list[nn.Module]:
    """Return the blocks that run: up to the one after the last output stage."""
    last = model.config.out_features[-1]
    stop = int(last.removeprefix("stage")) + 1 if last.startswith("stage") else None
    return list(model.encoder.layer)[:stop]


def _asked(model: nn.Module, kwargs: dict[str, Any]) -> tuple[int, ...]:
    if kwargs.get("output_attentions"):
        raise ValueError(
            f"{class_name(model)} was called with output_attentions, but attention weights are not "
            "available for windows; call it without."
        )
    return ()


def _refuse(model: nn.Module) -> str | None:
    """Return None; warn if the minor version is not tested."""
    try:
        found = version("rfdetr")
    except PackageNotFoundError:
        found = "unknown"
    if found.split(".")[:2] != TESTED.split(".")[:2]:
        warnings.warn(
            f"{class_name(model)} comes from rfdetr {found}; the tested version is {TESTED}. "
            "Compare its output at r=0 (ToMe) or with all tokens passing (Eventful) before use.",
            stacklevel=4,
        )
    return None


ADAPTERS = (
    ViTAdapter(
        name="rfdetr windowed DINOv2",
        classes=tuple(f"{_MODULE}.WindowedDinov2WithRegisters{k}" for k in ("Backbone", "Model")),
        blocks=_blocks,
        specs=(_LAYER,),
        prefix=lambda model: ("class", *["register"] * model.config.num_register_tokens),
        entries={"forward": lambda model: [len(_blocks(model)) - 1]},
        asked=_asked,
        refuse=_refuse,
        also=("RF-DETR",),
    ),
)
