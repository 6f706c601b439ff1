"""ViTDet: a plain vision transformer for detection (Li et al., arXiv 2203.16527).

Most blocks attend within windows, a few globally, all with decomposed relative positions. Names of
parameters are those of detectron2's release below ``backbone.net``, so that its weights and those
of the ImageNet VID fine-tunings load once renamed (:mod:`mmvitaccel.conversion`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model.weight_init import trunc_normal_
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mmvitaccel.arguments import flag, number, one_of, whole_number, whole_numbers
from mmvitaccel.core.attention.rel_pos import REL_POS_RESIZES
from mmvitaccel.models.vitdet.block import ViTDetBlock
from mmvitaccel.models.weights.pretrained import PretrainedBackbone
from mmvitaccel.registry import MODELS


class PatchEmbed(nn.Module):
    """Image to a map of patch tokens; an image that ends within a patch is padded with zeros."""

    def __init__(self, patch_size: int, in_channels: int, embed_dim: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_channels, embed_dim, patch_size, stride=patch_size)

    def forward(self, img: Tensor) -> Tensor:
        """(B, channels, height, width) in pixels -> (B, H, W, C) in tokens."""
        height, width = img.shape[-2:]
        missing = (0, -width % self.patch_size, 0, -height % self.patch_size)
        if any(missing):
            img = F.pad(img, missing)
        # reason: sums of tokens keep this layout, and every norm behind would copy another one.
        return self.proj(img).permute(0, 2, 3, 1).contiguous()


@MODELS.register_module()
class ViTDet(PretrainedBackbone):
    """The plain backbone of ViTDet.

    Any input size works, rectangular ones too: absolute positions are interpolated (bicubic), and
    tables of relative positions (linear) in blocks whose grid is not the one they were made for.

    Args:
        img_size: Side, in pixels, of the images that the global blocks' tables of relative
            positions are made for. Defaults to 1024.
        patch_size: Pixels a side of a patch. Defaults to 16.
        in_channels: Defaults to 3.
        embed_dim: Channels C. Defaults to 768.
        depth: Blocks. Defaults to 12.
        num_heads: Attention heads. Defaults to 12.
        mlp_ratio: Hidden width of the MLPs over C. Defaults to 4.
        qkv_bias: Whether queries, keys and values have a bias. Defaults to True.
        window_size: Tokens a side of a window. Defaults to 14.
        window_block_indexes: Blocks that attend within windows; the others attend globally.
        use_abs_pos: Whether absolute positions are added to the patches. Defaults to True.
        use_rel_pos: Whether attention has decomposed relative positions. Defaults to True.
        rel_pos_resize: How a grid that their tables are not made for resizes them, ``'table'`` as
            detectron2 and mmdet do, or ``'pairs'`` as the Eventful Transformers paper does.
            Defaults to ``'table'``.
        pretrain_img_size: Side, in pixels, of the images that the absolute positions are of.
            Defaults to 224.
        drop_path_rate: Stochastic depth of the last block; it rises linearly from 0.
        norm_eps: Epsilon of the LayerNorms. Defaults to 1e-6; mmdet's own ViTDet has 1e-5.
        with_cp: Whether a block's activations are computed again in the backward pass.
        init_cfg: mmengine's; ``dict(type='Pretrained', checkpoint='mae_vit_base.pth')`` takes
            MAE's weights, a detector's, and converted ones; what does not fit is an error.

    Raises:
        ValueError: An argument is out of its range, or heads do not divide the channels.
    """

    STEM = "patch_embed.proj.weight"
    # Pre-training has no relative positions; they begin at zero.
    MAY_LACK = ("rel_pos",)

    def __init__(
        self,
        img_size: int = 1024,
        patch_size: int = 16,
        in_channels: int = 3,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4,
        qkv_bias: bool = True,
        window_size: int = 14,
        window_block_indexes: Sequence[int] = (0, 1, 3, 4, 6, 7, 9, 10),
        use_abs_pos: bool = True,
        use_rel_pos: bool = True,
        rel_pos_resize: str = "table",
        pretrain_img_size: int = 224,
        drop_path_rate: float = 0.0,
        norm_eps: float = 1e-6,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        owner = "ViTDet"
        img_size = whole_number(owner, "img_size", img_size, least=1, of="pixels")
        patch_size = whole_number(owner, "patch_size", patch_size, least=1, of="pixels")
        in_channels = whole_number(owner, "in_channels", in_channels, least=1)
        embed_dim = whole_number(owner, "embed_dim", embed_dim, least=1)
        depth = whole_number(owner, "depth", depth, least=1, of="blocks")
        num_heads = whole_number(owner, "num_heads", num_heads, least=1)
        mlp_ratio = number(owner, "mlp_ratio", mlp_ratio, above=0)
        qkv_bias = flag(owner, "qkv_bias", qkv_bias)
        window_size = whole_number(owner, "window_size", window_size, least=0, of="tokens")
        window_block_indexes = whole_numbers(
            owner, "window_block_indexes", window_block_indexes, or_empty=True
        )
        use_abs_pos = flag(owner, "use_abs_pos", use_abs_pos)
        use_rel_pos = flag(owner, "use_rel_pos", use_rel_pos)
        rel_pos_resize = one_of(owner, "rel_pos_resize", rel_pos_resize, REL_POS_RESIZES)
        pretrain_img_size = whole_number(
            owner, "pretrain_img_size", pretrain_img_size, least=patch_size, of="pixels",
            why=f"patch_size={patch_size} is the least",
        )  # fmt: skip
        drop_path_rate = number(owner, "drop_path_rate", drop_path_rate, least=0, below=1)
        norm_eps = number(owner, "norm_eps", norm_eps, above=0)
        if embed_dim % num_heads:
            raise ValueError(
                f"ViTDet: embed_dim={embed_dim} is not divisible by num_heads={num_heads}; "
                "set heads that divide the channels."
            )
        if not all(0 <= index < depth for index in window_block_indexes):
            raise ValueError(
                f"ViTDet: window_block_indexes={window_block_indexes} names a block that "
                f"depth={depth} does not have; set indexes from 0 to {depth - 1}."
            )
        self.embed_dim = embed_dim
        self.patch_size = patch_size
        self.with_cp = flag(owner, "with_cp", with_cp)
        self.patch_embed = PatchEmbed(patch_size, in_channels, embed_dim)
        self.pos_embed = None
        if use_abs_pos:
            # reason: the first entry is of the class token that pre-training had. Nothing reads
            # it; it stays so that released weights load with every key and shape.
            positions = 1 + (pretrain_img_size // patch_size) ** 2
            self.pos_embed = nn.Parameter(torch.zeros(1, positions, embed_dim))
        rates = [drop_path_rate * index / max(depth - 1, 1) for index in range(depth)]
        grid = (-(-img_size // patch_size),) * 2
        self.blocks = nn.ModuleList()
        for index, rate in enumerate(rates):
            window = window_size if index in window_block_indexes else 0
            table = ((window, window) if window else grid) if use_rel_pos else None
            self.blocks.append(
                ViTDetBlock(
                    embed_dim,
                    num_heads,
                    mlp_ratio,
                    qkv_bias,
                    rate,
                    window,
                    table,
                    rel_pos_resize,
                    norm_eps,
                )
            )
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        """The initialisation of the release; :meth:`init_weights` then follows ``init_cfg``."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if self.pos_embed is not None:
            trunc_normal_(self.pos_embed, std=0.02)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        """Take absolute positions of another grid, with or without a class token."""
        positions = state_dict.get(prefix + "pos_embed")
        if (
            self.pos_embed is not None
            and positions is not None
            and positions.shape[1] != self.pos_embed.shape[1]
        ):
            state_dict[prefix + "pos_embed"] = _fit_positions(positions, self.pos_embed.shape[1])
        super()._load_from_state_dict(state_dict, prefix, *args)

    def positions(self, grid_size: tuple[int, int]) -> Tensor:
        """Absolute positions of a grid (H, W), (1, H, W, C)."""
        return _resize_positions(self.pos_embed[:, 1:], grid_size)

    def forward(self, img: Tensor) -> tuple[Tensor]:
        """Image to features.

        Args:
            img: (B, channels, height, width), sides in pixels.

        Returns:
            One map, (B, C, height / patch_size, width / patch_size), sides rounded up.
        """
        x = self.patch_embed(img)
        if self.pos_embed is not None:
            x = x + self.positions(tuple(x.shape[1:3])).to(x.dtype)
        for block in self.blocks:
            if self.with_cp and torch.is_grad_enabled() and x.requires_grad:
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return (x.permute(0, 3, 1, 2).contiguous(),)


def _resize_positions(positions: Tensor, grid_size: tuple[int, int]) -> Tensor:
    """Absolute positions of a square grid, (1, side * side, C) -> (1, H, W, C)."""
    side = math.isqrt(positions.shape[1])
    positions = positions.unflatten(1, (side, side))
    if tuple(grid_size) == (side, side):
        return positions
    # reason: with every channel at hand side by side, one axis after the other is a matrix product,
    # ten times faster than torch's interpolation, which takes channels one at a time
    with torch.autocast(positions.device.type, enabled=False):
        by_row, by_column = (_bicubic(side, size, positions.device) for size in grid_size)
        resized = torch.einsum("yi,bijc->byjc", by_row, positions.float())
        return torch.einsum("xj,byjc->byxc", by_column, resized).to(positions.dtype)


def _bicubic(old: int, new: int, device: torch.device) -> Tensor:
    """Weights of bicubic interpolation on one axis, (new, old)."""
    eye = torch.eye(old, device=device)[None, None]
    return F.interpolate(eye, (new, old), mode="bicubic", align_corners=False)[0, 0]


def _fit_positions(positions: Tensor, length: int) -> Tensor:
    """Absolute positions of a checkpoint for a model with ``length`` entries, class token first."""
    if math.isqrt(positions.shape[1]) ** 2 == positions.shape[1]:
        class_token, patches = torch.zeros_like(positions[:, :1]), positions
    else:
        class_token, patches = positions[:, :1], positions[:, 1:]
    side = math.isqrt(length - 1)
    return torch.cat((class_token, _resize_positions(patches, (side, side)).flatten(1, 2)), 1)
