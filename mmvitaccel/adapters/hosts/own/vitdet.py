"""This package's ViTDet: windowed attention, token maps between blocks, no prefix tokens."""

from __future__ import annotations

from torch import Tensor, nn

from mmvitaccel.adapters.base import BlockInput, BlockSpec, Grid, Patches, ViTAdapter
from mmvitaccel.core.attention.windows import bias_of


def _enter(block: nn.Module, x: Tensor) -> BlockInput:
    return BlockInput(x.flatten(1, 2), grid_size=tuple(x.shape[1:3]))


def _leave(block: nn.Module, x: Tensor, given: BlockInput) -> Tensor:
    return x.unflatten(1, given.grid_size)


def _qkv(block: nn.Module, h: Tensor, rope: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    attn = block.attn
    # (B, M, 3 * H * D) -> (3, B, H, M, D)
    return attn.qkv(h).unflatten(2, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


def _padding(block: nn.Module, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    # reason: computed without the layer, so that hooks on it see only tokens, as in the host
    bias, heads = bias_of(block.attn.qkv), block.attn.num_heads
    row = q.new_zeros(3 * heads * q.shape[-1]) if bias is None else bias.to(q.dtype)
    # (3 * H * D) -> (3, 1, H, 1, D)
    return row.view(3, 1, heads, 1, -1).unbind(0)


def _rel_pos(block: nn.Module, grid_size: Grid) -> tuple[Tensor, Tensor] | None:
    return block.attn.position_rows(grid_size)


def _finish(block: nn.Module, y: Tensor) -> Tensor:
    return block.drop_path(y)


def _positions(model: nn.Module, grid_size: Grid) -> Tensor | None:
    return None if model.pos_embed is None else model.positions(grid_size).flatten(1, 2)


def _unmovable(model: nn.Module, grid_size: Grid | None) -> str | None:
    for block in model.blocks if grid_size is not None else ():
        attn, sides = block.attn, grid_size
        if block.window_size or not attn.use_rel_pos or attn.rel_pos_resize != "pairs":
            continue
        own = tuple((len(table) + 1) // 2 for table in (attn.rel_pos_h, attn.rel_pos_w))
        if own != sides:
            return (
                f"its relative positions are interpolated in pairs from {own[0]} x {own[1]} to "
                f"{sides[0]} x {sides[1]} tokens and then depend on the absolute position"
            )
    return None


_BLOCK = BlockSpec(
    classes=("mmvitaccel.models.vitdet.block.ViTDetBlock",),
    num_heads=lambda block: block.attn.num_heads,
    scale=lambda block: block.attn.scale,
    attn_drop=lambda block: 0.0,
    norm1=lambda block: block.norm1,
    qkv=_qkv,
    project=lambda block, out, h: block.attn.proj(out),
    finish1=_finish,
    norm2=lambda block: block.norm2,
    mlp=lambda block, h: block.mlp(h),
    finish2=_finish,
    enter=_enter,
    leave=_leave,
    window_size=lambda block: block.window_size,
    padding=_padding,
    rel_pos=_rel_pos,
    keeps_grid=True,
    bypassed=("attn",),
)

ADAPTERS = (
    ViTAdapter(
        name="mmvitaccel ViTDet",
        classes=("mmvitaccel.models.vitdet.backbone.ViTDet",),
        blocks=lambda model: list(model.blocks),
        specs=(_BLOCK,),
        prefix=lambda model: (),
        entries={"forward": lambda model: [len(model.blocks) - 1]},
        patches=Patches(lambda model: model.patch_size, _positions, _unmovable),
    ),
)
