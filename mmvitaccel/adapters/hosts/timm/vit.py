"""timm's plain vision transformers: ViT, DeiT, DeiT-3, DINOv2, registers, EVA."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmvitaccel.adapters.base import (
    BlockInput,
    BlockSpec,
    Grid,
    Normed,
    Patches,
    ViTAdapter,
    named_base,
)
from mmvitaccel.core.attention.rotary import apply_rope, with_identity

_ATTENTION = (
    "timm.layers.attention.Attention",
    "timm.models.vision_transformer.Attention",  # before timm 1.0.17
)
_EVA_ATTENTION = (
    "timm.models.eva.EvaAttention",
    "timm.layers.attention.AttentionRope",
)


def _enter(
    block: nn.Module,
    x: Tensor,
    rope: Tensor | None = None,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
) -> BlockInput:
    if attn_mask is not None or is_causal:
        raise ValueError(
            f"{type(block).__name__} was called with "
            f"{'a causal' if attn_mask is None else 'an attention'} mask: positions change when "
            "tokens are merged or dropped, so masks are not supported; call the model without one."
        )
    if rope is not None:
        while rope.ndim < 4:  # (N, 2D) or (H, N, 2D) -> (1, 1 or H, N, 2D)
            rope = rope[None]
        rope = with_identity(rope, block.attn.num_prefix_tokens)
    return BlockInput(x, rope)


def _enter_without_rope(
    block: nn.Module, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False
) -> BlockInput:
    return _enter(block, x, None, attn_mask, is_causal)


def _split(block: nn.Module, h: Tensor) -> tuple[Tensor, ...]:
    """Compute queries, keys and values (B, H, M, D) before their norms and rotation."""
    attn = block.attn
    if attn.qkv is None:
        parts = [attn.q_proj(h), attn.k_proj(h), attn.v_proj(h)]
        # (B, M, H * D) -> (B, H, M, D)
        return tuple(y.unflatten(2, (-1, _head_dim(attn))).transpose(1, 2) for y in parts)
    if getattr(attn, "q_bias", None) is None:
        qkv = attn.qkv(h)
    else:
        bias = torch.cat([attn.q_bias, attn.k_bias, attn.v_bias])
        qkv = F.linear(h, attn.qkv.weight, bias)
    # (B, M, 3 * H * D) -> (3, B, H, M, D)
    return qkv.unflatten(2, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


def _head_dim(attn: nn.Module) -> int:
    return attn.q_proj.out_features // attn.num_heads


def _qkv(block: nn.Module, h: Tensor, rope: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    attn = block.attn
    q, k, v = _split(block, h)
    q, k = attn.q_norm(q), attn.k_norm(k)
    if rope is not None:
        half = getattr(attn, "rotate_half", False)
        q, k = (apply_rope(t, rope, half).type_as(v) for t in (q, k))
    groups = attn.num_heads // k.shape[1]
    if groups > 1:
        k, v = (t.repeat_interleave(groups, dim=1) for t in (k, v))
    return q, k, v


def _project(block: nn.Module, out: Tensor, h: Normed | None) -> Tensor:
    attn = block.attn
    out = attn.norm(out) if hasattr(attn, "norm") else out
    if getattr(attn, "gate", None) is not None:
        out = out * attn.gate(h()).sigmoid()
    return attn.proj_drop(attn.proj(out))


def _attn_drop(block: nn.Module) -> float:
    return block.attn.attn_drop.p if block.training else 0.0


def _finish(number: int):
    def finish(block: nn.Module, y: Tensor) -> Tensor:
        return getattr(block, f"drop_path{number}")(getattr(block, f"ls{number}")(y))

    return finish


def _eva_finish(number: int):
    def finish(block: nn.Module, y: Tensor) -> Tensor:
        gamma = getattr(block, f"gamma_{number}")
        return getattr(block, f"drop_path{number}")(y if gamma is None else gamma * y)

    return finish


def _attention_is(names: tuple[str, ...]):
    def refuse(block: nn.Module) -> str | None:
        base = named_base(block.attn, names)
        if base is None or type(block.attn).forward is not base.forward:
            found = f"{type(block.attn).__module__}.{type(block.attn).__qualname__}"
            return f"its attention is {found}; supported are {', '.join(names)}"
        return None

    return refuse


def _block_spec(classes: tuple[str, ...], attention: tuple[str, ...], enter, finish) -> BlockSpec:
    return BlockSpec(
        classes=classes,
        num_heads=lambda block: block.attn.num_heads,
        scale=lambda block: block.attn.scale,
        attn_drop=_attn_drop,
        norm1=lambda block: block.norm1,
        qkv=_qkv,
        project=_project,
        finish1=finish(1),
        norm2=lambda block: block.norm2,
        mlp=lambda block, h: block.mlp(h),
        finish2=finish(2),
        enter=enter,
        refuse=_attention_is(attention),
        bypassed=("attn", "attn.attn_drop"),
    )


def _blocks(model: nn.Module) -> list[nn.Module]:
    return list(model.blocks)


def _last(model: nn.Module) -> range:
    return range(len(model.blocks) - 1, len(model.blocks))


def _every(model: nn.Module) -> range:
    return range(len(model.blocks))


def _prefix(model: nn.Module) -> tuple[str, ...]:
    names = ["class"] if getattr(model, "cls_token", None) is not None else []
    if getattr(model, "dist_token", None) is not None:
        names.append("distillation")
    return (*names, *["register"] * (model.num_prefix_tokens - len(names)))


def _positions(model: nn.Module, grid_size: Grid) -> Tensor | None:
    table, num_tokens = model.pos_embed, grid_size[0] * grid_size[1]
    return None if table is None else table[:, table.shape[1] - num_tokens :]


def _unmovable(model: nn.Module, grid_size: Grid | None) -> str | None:
    conv = getattr(model.patch_embed, "proj", None)
    square = type(conv) is nn.Conv2d and len({*conv.kernel_size, *conv.stride}) == 1
    if not square or any(conv.padding):
        return "its patches are not adjacent squares that one convolution embeds"
    if not isinstance(model.norm_pre, nn.Identity):
        return "it normalises tokens after their positions are added"
    if getattr(model, "dynamic_img_size", False):
        return "it resizes its positions to the picture (dynamic_img_size); build it for one size"
    return None


_ENTRIES = {
    "forward": _last,
    "forward_features": _last,
    "forward_intermediates": _every,
    "get_intermediate_layers": _every,
}


ADAPTERS = (
    ViTAdapter(
        name="timm VisionTransformer",
        classes=(
            "timm.models.vision_transformer.VisionTransformer",
            "timm.models.deit.VisionTransformerDistilled",
        ),
        blocks=_blocks,
        specs=(
            _block_spec(
                ("timm.models.vision_transformer.Block",), _ATTENTION, _enter_without_rope, _finish
            ),
        ),
        prefix=_prefix,
        entries=_ENTRIES,
        also=("DeiT", "DeiT-3", "DINOv2", "CLIP", "SigLIP"),
        patches=Patches(
            size=lambda model: model.patch_embed.proj.stride[0],
            positions=_positions,
            refuse=_unmovable,
        ),
    ),
    ViTAdapter(
        name="timm Eva",
        classes=("timm.models.eva.Eva",),
        blocks=_blocks,
        specs=(_block_spec(("timm.models.eva.EvaBlock",), _EVA_ATTENTION, _enter, _eva_finish),),
        prefix=_prefix,
        entries=_ENTRIES,
        also=("EVA", "EVA-02", "DINOv3"),
    ),
)
