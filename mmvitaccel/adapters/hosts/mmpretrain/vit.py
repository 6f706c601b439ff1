"""mmpretrain's VisionTransformer and its subclasses: DeiT, DeiT-3, MAE, EVA-02."""

from __future__ import annotations

from torch import Tensor, nn

from mmvitaccel.adapters.base import BlockSpec, Normed, ViTAdapter, named_base
from mmvitaccel.adapters.hosts.mmpretrain import eva02

_ATTENTION = "mmpretrain.models.utils.attention.MultiheadAttention"


def _qkv(layer: nn.Module, h: Tensor, rope: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    attn = layer.attn
    # (B, M, 3 * H * D) -> (3, B, H, M, D)
    return attn.qkv(h).unflatten(2, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


def _project(layer: nn.Module, out: Tensor, h: Normed | None) -> Tensor:
    return layer.attn.proj_drop(layer.attn.proj(out))


def _finish(layer: nn.Module, y: Tensor) -> Tensor:
    return layer.attn.out_drop(layer.attn.gamma1(y))


def _mlp(layer: nn.Module, h: Tensor) -> Tensor:
    # The FFN adds the identity itself; with identity=0 it returns only the branch
    return layer.ffn(h, identity=0)


def _refuse(layer: nn.Module) -> str | None:
    base = named_base(layer.attn, [_ATTENTION])
    if base is None or type(layer.attn).forward is not base.forward:
        return f"its attention is a {type(layer.attn).__name__}; supported is {_ATTENTION}"
    return "its attention adds the values (v_shortcut)" if layer.attn.v_shortcut else None


def _layer_spec(name: str, norm2: str) -> BlockSpec:
    return BlockSpec(
        classes=(f"mmpretrain.models.backbones.{name}",),
        num_heads=lambda layer: layer.attn.num_heads,
        scale=lambda layer: layer.attn.head_dims**-0.5,
        attn_drop=lambda layer: layer.attn.attn_drop if layer.training else 0.0,
        norm1=lambda layer: layer.ln1,
        qkv=_qkv,
        project=_project,
        finish1=_finish,
        norm2=lambda layer: getattr(layer, norm2),
        mlp=_mlp,
        refuse=_refuse,
        bypassed=("attn", "ffn"),
    )


def _prefix(model: nn.Module) -> tuple[str, ...]:
    names = ("class",) if model.cls_token is not None else ()
    return (*names, "distillation") if hasattr(model, "dist_token") else names


ADAPTERS = (
    ViTAdapter(
        name="mmpretrain VisionTransformer",
        classes=("mmpretrain.models.backbones.vision_transformer.VisionTransformer",),
        blocks=lambda model: list(model.layers),
        specs=(
            _layer_spec("vision_transformer.TransformerEncoderLayer", norm2="ln2"),
            # mmpretrain's DeiT-3 layer uses its first norm twice, so this does too
            _layer_spec("deit3.DeiT3TransformerEncoderLayer", norm2="ln1"),
            eva02.LAYER,
        ),
        prefix=_prefix,
        entries={"forward": lambda model: model.out_indices},
        also=("DeiT", "DeiT-3", "MAE", "EVA-02", "CLIP"),
    ),
)
