"""Parts of ViViT: pre-norm blocks, and an encoder that returns its class token.

Shapes: B clips or time steps, N tokens, C channels.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

# The released weights were trained with 1e-6, which is not torch's default
LAYER_NORM_EPS = 1e-6


class Attention(nn.Module):
    """Multi-head self-attention with torch's fused operator.

    Args:
        dim: Channels C.
        num_heads: Number of heads, a divisor of ``dim``.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self.scale = self.head_dim**-0.5
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        batch, length, dim = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.num_heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, heads, N, C / heads)
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(batch, length, dim))


class Block(nn.Module):
    """Pre-norm transformer block: attention and MLP, each with a skip connection.

    Args:
        dim: Channels C.
        num_heads: Number of attention heads.
        mlp_ratio: Ratio of the MLP's hidden width to ``dim``.
        drop_path: Probability of dropping a residual branch for a sample in training.
    """

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        from timm.layers import Mlp  # Half a second that other models need not wait

        self.norm1 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


def resize_positions(positions: Tensor, old: tuple[int, ...], new: tuple[int, ...]) -> Tensor:
    """Resize position embeddings to another grid, linearly along each axis.

    Args:
        positions: (1, 1 + prod(old), C), the class token's first.
        old: Grid of ``positions``: (H, W) or (S,).
        new: New grid, with the same number of axes.

    Returns:
        (1, 1 + prod(new), C) in the same dtype; ``positions`` itself if the grids are equal.
    """
    if old == new:
        return positions
    grid = positions[:, 1:].unflatten(1, old).movedim(-1, 1)  # (1, N, C) -> (1, C, *old)
    mode = "linear" if len(old) == 1 else "bilinear"
    grid = F.interpolate(grid.float(), size=new, mode=mode, align_corners=False)
    grid = grid.to(positions.dtype).flatten(2).transpose(1, 2)  # (1, C, *new) -> (1, N', C)
    return torch.cat([positions[:, :1], grid], dim=1)


class ClassTokenEncoder(nn.Module):
    """Transformer over a grid of tokens that returns its class token.

    Args:
        grid_size: Grid of the learned positions, (H, W) in space or (S,) in time.
        dim: Channels C.
        num_heads: Number of attention heads in each block.
        mlp_ratio: Ratio of the MLPs' hidden width to ``dim``.
        drop_path: Stochastic depth of each block; its length is the number of blocks.
        with_cp: Recompute blocks in the backward pass instead of storing their activations.
    """

    def __init__(
        self,
        grid_size: tuple[int, ...],
        dim: int,
        num_heads: int,
        mlp_ratio: float,
        drop_path: list[float],
        with_cp: bool,
    ) -> None:
        super().__init__()
        self.grid_size = grid_size
        self.with_cp = with_cp
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + math.prod(grid_size), dim))
        self.blocks = nn.ModuleList(Block(dim, num_heads, mlp_ratio, rate) for rate in drop_path)
        self.norm = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def add_positions(self, x: Tensor, grid_size: tuple[int, ...]) -> Tensor:
        """Prepend the class token and add positions: (B, N, C) -> (B, 1 + N, C)."""
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        return x + resize_positions(self.pos_embed, self.grid_size, grid_size)

    def forward(self, x: Tensor, grid_size: tuple[int, ...], keep: Tensor | None = None) -> Tensor:
        """Encode tokens.

        Args:
            x: (B, prod(grid_size), C).
            grid_size: Grid of the tokens, (H, W) or (S,).
            keep: Positions (B, M) of the tokens to encode, chosen after positions are added; None
                for all.

        Returns:
            (B, C), the class token after the last norm.
        """
        x = self.add_positions(x, grid_size)
        if keep is not None:
            x = torch.cat([x[:, :1], x[:, 1:].take_along_dim(keep[..., None], 1)], 1)
        for block in self.blocks:
            if self.with_cp and self.training:
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        # The norm acts on each token independently, so only the class token needs it.
        return self.norm(x[:, 0])

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        """Resize the positions of a checkpoint with another clip length or resolution."""
        name = f"{prefix}pos_embed"
        found = state_dict.get(name)
        if found is not None and found.shape != self.pos_embed.shape:
            side = round((found.shape[1] - 1) ** (1 / len(self.grid_size)))
            old = (side,) * len(self.grid_size)
            # A grid that is not square cannot be inferred from the number of positions;
            # torch then raises an error with the two shapes
            if 1 + math.prod(old) == found.shape[1] and found.shape[2:] == self.pos_embed.shape[2:]:
                state_dict[name] = resize_positions(found, old, self.grid_size)
        super()._load_from_state_dict(state_dict, prefix, *args)
