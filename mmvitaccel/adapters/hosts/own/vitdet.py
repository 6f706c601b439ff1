"""This package's ViTDet: windowed attention, token maps between blocks, no prefix tokens."""

from __future__ import annotations

from torch import Tensor, nn

from mmvitaccel.adapters.base import Grid, Patches, ViTAdapter
from mmvitaccel.adapters.window_map import map_spec


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


_BLOCK = map_spec(
    ["mmvitaccel.models.vitdet.block.ViTDetBlock"],
    ["mmvitaccel.models.vitdet.block.Attention"],
    finish1=_finish,
    finish2=_finish,
    rel_pos=lambda block, grid_size: block.attn.position_rows(grid_size),
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
