"""The block of ViTDet and SAM: a map, windows, decomposed positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from mmvitaccel.adapters.base import (
    BlockInput,
    BlockSpec,
    Grid,
    Patches,
    class_name,
    named_base,
)
from mmvitaccel.core.attention.rel_pos import offset_rows
from mmvitaccel.core.attention.windows import bias_of


def enter_map(block: nn.Module, x: Tensor) -> BlockInput:
    """A map (B, H, W, C)."""
    return BlockInput(x.flatten(1, 2), grid_size=tuple(x.shape[1:3]))


def leave_map(block: nn.Module, x: Tensor, given: BlockInput) -> Tensor:
    """Tokens (B, N, C) back to a map (B, H, W, C)."""
    return x.unflatten(1, given.grid_size)


def attention_is(
    known: Sequence[str], attention: Callable[[nn.Module], nn.Module]
) -> Callable[[nn.Module], str | None]:
    """A block's ``refuse``: its attention must be of one of these classes, with its own forward."""

    def refuse(block: nn.Module) -> str | None:
        found = attention(block)
        base = named_base(found, known)
        if base is None or type(found).forward is not base.forward:
            return f"its attention is {class_name(found)}, known are {', '.join(known)}"
        return None

    return refuse


def map_patches(conv: Callable[[nn.Module], nn.Module]) -> Patches:
    """Patches of a model that adds a table ``pos_embed`` (1, H, W, C) to their map, or none.

    Args:
        conv: Gives the convolution that cuts them.
    """

    def positions(model: nn.Module, grid_size: Grid) -> Tensor | None:
        table = getattr(model, "pos_embed", None)
        return None if table is None else table.flatten(1, 2)

    def refuse(model: nn.Module, grid_size: Grid | None) -> str | None:
        cut = conv(model)
        if len({*cut.kernel_size, *cut.stride}) > 1 or any(cut.padding):
            return "its patches are not squares beside each other, cut by one convolution"
        table = getattr(model, "pos_embed", None)
        if grid_size is not None and table is not None and table.shape[1:3] != grid_size:
            own = " x ".join(map(str, table.shape[1:3]))
            return f"its positions are those of {own} tokens; build it for pictures of this size"
        return None

    return Patches(lambda model: conv(model).stride[0], positions, refuse)


def map_spec(
    classes: Sequence[str],
    attention_classes: Sequence[str],
    *,
    attention: str = "attn",
    heads: str = "num_heads",
    use_rel_pos: str = "use_rel_pos",
    norms: tuple[str, str] = ("norm1", "norm2"),
    **more: Any,
) -> BlockSpec:
    """A block whose attention has ``qkv``, ``proj``, ``scale``, ``rel_pos_h`` and ``rel_pos_w``.

    Args:
        classes: Those of the block; it has a ``window_size`` and an ``mlp``.
        attention_classes: Those of its attention.
        attention: The attention's name in the block.
        heads: The attention's number of heads.
        use_rel_pos: The attention's switch of relative positions.
        norms: The block's two norms.
        **more: Other fields of :class:`BlockSpec`.
    """

    def attn(block: nn.Module) -> nn.Module:
        return getattr(block, attention)

    def cut(rows: Tensor, block: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
        # (B, M, 3 * H * D) -> (3, B, H, M, D)
        rows = rows.unflatten(2, (3, getattr(attn(block), heads), -1))
        return rows.permute(2, 0, 3, 1, 4).unbind(0)

    def padding(block: nn.Module, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # Not by the layer, so that hooks on it see the tokens alone, as in the host
        bias = bias_of(attn(block).qkv)
        row = q.new_zeros(attn(block).qkv.out_features) if bias is None else bias.to(q.dtype)
        return cut(row[None, None], block)

    def rel_pos(block: nn.Module, grid_size: Grid) -> tuple[Tensor, Tensor] | None:
        if not getattr(attn(block), use_rel_pos):
            return None
        tables = (attn(block).rel_pos_h, attn(block).rel_pos_w)
        return tuple(offset_rows(table, size) for table, size in zip(tables, grid_size))

    own = dict(
        classes=tuple(classes),
        num_heads=lambda block: getattr(attn(block), heads),
        scale=lambda block: attn(block).scale,
        attn_drop=lambda block: 0.0,
        norm1=lambda block: getattr(block, norms[0]),
        qkv=lambda block, h, rope: cut(attn(block).qkv(h), block),
        project=lambda block, out, h: attn(block).proj(out),
        norm2=lambda block: getattr(block, norms[1]),
        mlp=lambda block, h: block.mlp(h),
        enter=enter_map,
        leave=leave_map,
        window_size=lambda block: block.window_size,
        padding=padding,
        rel_pos=rel_pos,
        keeps_grid=True,
        refuse=attention_is(attention_classes, attn),
        bypassed=(attention,),
    )
    return BlockSpec(**{**own, **more})
