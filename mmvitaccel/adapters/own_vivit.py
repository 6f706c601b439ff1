"""This package's ViViT: the methods work in its spatial encoder, one time step at a time."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mmvitaccel.adapters.base import BlockSpec, ViTAdapter


def _blocks(model: nn.Module) -> Sequence[nn.Module]:
    return list(model.spatial.blocks)


def _qkv(block: nn.Module, h: Tensor, rope: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    attn = block.attn
    # (B, M, 3 * H * D) -> (3, B, H, M, D)
    return attn.qkv(h).unflatten(2, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


def _finish(block: nn.Module, y: Tensor) -> Tensor:
    return block.drop_path(y)


_BLOCK = BlockSpec(
    classes=("mmvitaccel.models.vivit_encoder.Block",),
    num_heads=lambda block: block.attn.num_heads,
    scale=lambda block: block.attn.scale,
    attn_drop=lambda block: 0.0,
    norm1=lambda block, x: block.norm1(x),
    qkv=_qkv,
    project=lambda block, out, h: block.attn.proj(out),
    finish1=_finish,
    norm2=lambda block, x: block.norm2(x),
    mlp=lambda block, h: block.mlp(h),
    finish2=_finish,
)

ADAPTERS = (
    ViTAdapter(
        name="mmvitaccel ViViT",
        classes=("mmvitaccel.models.vivit.ViViT",),
        blocks=_blocks,
        specs=(_BLOCK,),
        prefix=lambda model: ("class",),
        # Only the class token is read behind the last block, so tokens never come back.
        entries={"encode_steps": lambda model: ()},
    ),
)
