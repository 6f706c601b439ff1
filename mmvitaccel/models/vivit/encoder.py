"""Parts of ViViT: pre-norm blocks, and an encoder that is read out at its class token.

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

# reason: the released weights were trained with 1e-6, which is not torch's default
LAYER_NORM_EPS = 1e-6


class Attention(nn.Module):
    """Multi-head self-attention by torch's fused operator.

    Args:
        dim: Channels C.
        num_heads: Heads; divides ``dim``.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self.scale = self.head_dim**-0.5
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Let each token read all tokens; (B, N, C) in and out."""
        batch, length, dim = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.num_heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, heads, N, C / heads)
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(batch, length, dim))


class Block(nn.Module):
    """Pre-norm transformer block: attention, then MLP, each with its skip.

    Args:
        dim: Channels C.
        num_heads: Heads of the attention.
        mlp_ratio: Width of the MLP over ``dim``.
        drop_path: Probability of leaving out a branch of a sample while training.
    """

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        from timm.layers import Mlp  # reason: half a second that other models need not wait

        self.norm1 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) in and out."""
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


def resize_positions(positions: Tensor, old: tuple[int, ...], new: tuple[int, ...]) -> Tensor:
    """Resample position embeddings to another grid, linearly along each of its axes.

    Args:
        positions: (1, 1 + prod(old), C), that of the class token first.
        old: Grid of ``positions``: (H, W) or (S,).
        new: Grid wanted, as many axes.

    Returns:
        (1, 1 + prod(new), C) of the same dtype; ``positions`` itself if the grids are equal.
    """
    if old == new:
        return positions
    grid = positions[:, 1:].unflatten(1, old).movedim(-1, 1)  # (1, N, C) -> (1, C, *old)
    mode = "linear" if len(old) == 1 else "bilinear"
    grid = F.interpolate(grid.float(), size=new, mode=mode, align_corners=False)
    grid = grid.to(positions.dtype).flatten(2).transpose(1, 2)  # (1, C, *new) -> (1, N', C)
    return torch.cat([positions[:, :1], grid], dim=1)


class ClassTokenEncoder(nn.Module):
    """Transformer over a grid of tokens, read out at its class token.

    Args:
        grid_size: Grid of the learned positions, (H, W) in space or (S,) in time.
        dim: Channels C.
        num_heads: Heads of each block.
        mlp_ratio: Width of the MLPs over ``dim``.
        drop_path: One rate for each block; their number is the depth.
        with_cp: Recompute blocks in the backward pass to save memory.
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
        """Put the class token first and add positions: (B, N, C) to (B, 1 + N, C)."""
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        return x + resize_positions(self.pos_embed, self.grid_size, grid_size)

    def forward(self, x: Tensor, grid_size: tuple[int, ...], keep: Tensor | None = None) -> Tensor:
        """Encode tokens (B, prod(grid_size), C) into their class token (B, C), after its norm.

        Of the tokens, with their positions, those at ``keep`` (B, M) go on; None for all.
        """
        x = self.add_positions(x, grid_size)
        if keep is not None:
            x = torch.cat([x[:, :1], x[:, 1:].take_along_dim(keep[..., None], 1)], 1)
        for block in self.blocks:
            if self.with_cp and self.training:
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        # The norm acts on each token independently, so the others need none.
        return self.norm(x[:, 0])

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        """Resize the positions of a checkpoint of another clip length or resolution."""
        name = f"{prefix}pos_embed"
        found = state_dict.get(name)
        if found is not None and found.shape != self.pos_embed.shape:
            side = round((found.shape[1] - 1) ** (1 / len(self.grid_size)))
            old = (side,) * len(self.grid_size)
            # reason: the rows of a grid that is not square cannot be told from a count; then
            # torch's own message about the two shapes is the right one
            if 1 + math.prod(old) == found.shape[1] and found.shape[2:] == self.pos_embed.shape[2:]:
                state_dict[name] = resize_positions(found, old, self.grid_size)
        super()._load_from_state_dict(state_dict, prefix, *args)
