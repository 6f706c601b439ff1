"""A block of ViTDet: windowed or global attention over a map of tokens, and an MLP."""

from __future__ import annotations

from typing import Any

import torch
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from mmvitaccel.core.attention.dense import dense_attention
from mmvitaccel.core.attention.rel_pos import RelPos, offset_rows, resize_table
from mmvitaccel.core.attention.windows import bias_of, from_windows, pad_map, to_windows


class Attention(nn.Module):
    """Multi-head attention over a grid of tokens.

    Args:
        dim: Channels C.
        num_heads: Number of heads; each has C / num_heads channels.
        qkv_bias: Whether queries, keys and values have a bias.
        rel_pos_size: Grid (H, W) of the relative position tables, which are interpolated for any
            other grid; None disables relative positions.
        rel_pos_resize: How they are interpolated; see
            :func:`mmvitaccel.core.attention.rel_pos.offset_rows`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        qkv_bias: bool = True,
        rel_pos_size: tuple[int, int] | None = None,
        rel_pos_resize: str = "table",
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.rel_pos_resize = rel_pos_resize
        self.head_dim = dim // num_heads
        self.scale = self.head_dim**-0.5
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.use_rel_pos = rel_pos_size is not None
        if rel_pos_size is not None:
            height, width = rel_pos_size
            self.rel_pos_h = nn.Parameter(torch.zeros(2 * height - 1, self.head_dim))
            self.rel_pos_w = nn.Parameter(torch.zeros(2 * width - 1, self.head_dim))

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        """Interpolate tables of another grid, as the forward pass does."""
        for name in ("rel_pos_h", "rel_pos_w") if self.use_rel_pos else ():
            table, own = state_dict.get(prefix + name), getattr(self, name)
            if table is not None and table.shape[0] != own.shape[0]:
                state_dict[prefix + name] = resize_table(table, (own.shape[0] + 1) // 2)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def position_rows(self, grid_size: tuple[int, int]) -> tuple[Tensor, Tensor] | None:
        """Rows of the tables for every query and key position of a grid (H, W).

        Returns:
            (H, H, C / heads) for the rows and (W, W, C / heads) for the columns of the grid; None
            without relative positions.
        """
        if not self.use_rel_pos:
            return None
        return (
            offset_rows(self.rel_pos_h, grid_size[0], self.rel_pos_resize),
            offset_rows(self.rel_pos_w, grid_size[1], self.rel_pos_resize),
        )

    def attend(self, qkv: Tensor, grid_size: tuple[int, int]) -> Tensor:
        """Attention without its linear layers.

        Args:
            qkv: (B, H * W, 3C): queries, keys and values, each with all heads.
            grid_size: (H, W).

        Returns:
            (B, H * W, C), before the output projection.
        """
        # (B, N, 3C) -> 3 x (B, heads, N, D)
        q, k, v = qkv.unflatten(-1, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4)
        rows = self.position_rows(grid_size)
        rel_pos = None if rows is None else RelPos(*rows)
        return dense_attention(q, k, v, self.scale, rel_pos).transpose(1, 2).flatten(2)


class ViTDetBlock(nn.Module):
    """Pre-norm transformer block over a map of tokens, with windowed or global attention.

    Args:
        dim: Channels C.
        num_heads: Number of attention heads.
        mlp_ratio: Ratio of the MLP's hidden width to C.
        qkv_bias: See :class:`Attention`.
        drop_path: Probability of dropping a residual branch for a sample in training.
        window_size: Side of a window in tokens; 0 for global attention.
        rel_pos_size: See :class:`Attention`.
        rel_pos_resize: See :class:`Attention`.
        norm_eps: Epsilon of both LayerNorms.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_path: float = 0.0,
        window_size: int = 0,
        rel_pos_size: tuple[int, int] | None = None,
        rel_pos_resize: str = "table",
        norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        from timm.layers import Mlp  # Half a second that other models need not wait

        self.window_size = window_size
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = Attention(dim, num_heads, qkv_bias, rel_pos_size, rel_pos_resize)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        x = x + self.drop_path(self._attention(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _attention(self, x: Tensor) -> Tensor:
        grid_size = x.shape[1:3]
        qkv = self.attn.qkv(x)
        if not self.window_size:
            out = self.attn.attend(qkv.flatten(1, 2), grid_size).unflatten(1, grid_size)
        else:
            # Tokens are padded with zeros after the norm, so only the bias remains
            qkv = pad_map(qkv, self.window_size, bias_of(self.attn.qkv))
            windows = to_windows(qkv, self.window_size)
            windows = self.attn.attend(windows, (self.window_size, self.window_size))
            out = from_windows(windows, self.window_size, grid_size)
        return self.attn.proj(out)
