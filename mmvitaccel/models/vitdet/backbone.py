"""ViTDet: a plain vision transformer for detection (Li et al., arXiv 2203.16527).

Most blocks use attention within windows, a few global attention, all with decomposed relative
positions. Parameter names equal those of detectron2's release below ``backbone.net``: its weights
and the fine-tunings on ImageNet VID load after renaming (:mod:`mmvitaccel.conversion`).
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
from mmvitaccel.core.torch_modes import without_autocast
from mmvitaccel.models.vitdet.block import ViTDetBlock
from mmvitaccel.models.weights.pretrained import PretrainedBackbone
from mmvitaccel.registry import MODELS


class PatchEmbed(nn.Module):
    """Image to a map of patch tokens; an image is padded with zeros to whole patches.

    Args:
        patch_size: Side of a patch in pixels.
        in_channels: Channels of the image.
        embed_dim: Channels C of a token.
    """

    def __init__(self, patch_size: int, in_channels: int, embed_dim: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_channels, embed_dim, patch_size, stride=patch_size)

    def forward(self, img: Tensor) -> Tensor:
        """(B, in_channels, height, width) in pixels -> (B, H, W, C) in tokens."""
        height, width = img.shape[-2:]
        missing = (0, -width % self.patch_size, 0, -height % self.patch_size)
        if any(missing):
            img = F.pad(img, missing)
        # Residual sums keep this layout; with any other, each LayerNorm copies its input
        return self.proj(img).permute(0, 2, 3, 1).contiguous()


@MODELS.register_module()
class ViTDet(PretrainedBackbone):
    """The plain backbone of ViTDet.

    Images may have any size, also a rectangular one. Absolute positions are interpolated (bicubic),
    and so are the relative position tables (linear) of blocks with another grid.

    Args:
        img_size: Side of the images, in pixels, for which the relative position tables of blocks
            with global attention are created. Defaults to 1024.
        patch_size: Side of a patch in pixels. Defaults to 16.
        in_channels: Channels of the images. Defaults to 3.
        embed_dim: Channels C. Defaults to 768.
        depth: Number of blocks. Defaults to 12.
        num_heads: Number of attention heads. Defaults to 12.
        mlp_ratio: Ratio of the MLPs' hidden width to C. Defaults to 4.
        qkv_bias: Whether queries, keys and values have a bias. Defaults to True.
        window_size: Side of a window in tokens. Defaults to 14.
        window_block_indexes: Blocks with attention within windows; the others have global
            attention.
        use_abs_pos: Whether absolute positions are added to the patches. Defaults to True.
        use_rel_pos: Whether attention has decomposed relative positions. Defaults to True.
        rel_pos_resize: How relative positions are resized to another grid: ``'table'``, as in
            detectron2 and mmdet, or ``'pairs'``, as in the Eventful Transformers paper. Defaults to
            ``'table'``.
        pretrain_img_size: Side of the pre-training images, in pixels, for which the absolute
            positions are created. Defaults to 224.
        drop_path_rate: Stochastic depth of the last block; it rises linearly from 0.
        norm_eps: Epsilon of the LayerNorms. Defaults to 1e-6; mmdet's ViTDet has 1e-5.
        with_cp: Recompute blocks in the backward pass instead of storing their activations.
        init_cfg: Initialization config of mmengine. ``dict(type='Pretrained',
            checkpoint='mae_vit_base.pth')`` loads MAE's weights, a detector's, or converted ones.
            Other weights raise an error.

    Raises:
        ValueError: An argument is out of range, or ``num_heads`` does not divide ``embed_dim``.
    """

    STEM = "patch_embed.proj.weight"
    # Pre-trained weights have no relative positions; these are then initialised with zeros.
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
                "set num_heads to a divisor of embed_dim."
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
            # The first entry belongs to the class token of pre-training. It is not used,
            # but with it released weights load with all names and shapes.
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
        """Initialise as in the release; :meth:`init_weights` then applies ``init_cfg``."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if self.pos_embed is not None:
            trunc_normal_(self.pos_embed, std=0.02)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        """Resize absolute positions of another grid, with or without a class token."""
        positions = state_dict.get(prefix + "pos_embed")
        if (
            self.pos_embed is not None
            and positions is not None
            and positions.shape[1] != self.pos_embed.shape[1]
        ):
            state_dict[prefix + "pos_embed"] = _fit_positions(positions, self.pos_embed.shape[1])
        super()._load_from_state_dict(state_dict, prefix, *args)

    def positions(self, grid_size: tuple[int, int]) -> Tensor:
        """Return the absolute positions (1, H, W, C) of a grid (H, W)."""
        return _resize_positions(self.pos_embed[:, 1:], grid_size)

    def forward(self, img: Tensor) -> tuple[Tensor]:
        """Compute the feature map of images.

        Args:
            img: (B, in_channels, height, width), in pixels.

        Returns:
            A tuple with one map, (B, C, ceil(height / patch_size), ceil(width / patch_size)).
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
    """Resize absolute positions of a square grid, (1, side * side, C) -> (1, H, W, C)."""
    side = math.isqrt(positions.shape[1])
    positions = positions.unflatten(1, (side, side))
    if tuple(grid_size) == (side, side):
        return positions
    # Channels are contiguous, so the interpolation of one axis after the other is a matrix
    # product. It is much faster than torch's interpolation, which processes channels one by one
    with without_autocast(positions.device.type):
        by_row, by_column = (_bicubic(side, size, positions.device) for size in grid_size)
        resized = torch.einsum("yi,bijc->byjc", by_row, positions.float())
        return torch.einsum("xj,byjc->byxc", by_column, resized).to(positions.dtype)


def _bicubic(old: int, new: int, device: torch.device) -> Tensor:
    """Return the weights (new, old) of bicubic interpolation along one axis."""
    eye = torch.eye(old, device=device, dtype=torch.float32)[None, None]
    return F.interpolate(eye, (new, old), mode="bicubic", align_corners=False)[0, 0]


def _fit_positions(positions: Tensor, length: int) -> Tensor:
    """Resize a checkpoint's absolute positions to ``length`` entries, the class token's first."""
    if math.isqrt(positions.shape[1]) ** 2 == positions.shape[1]:
        class_token, patches = torch.zeros_like(positions[:, :1]), positions
    else:
        class_token, patches = positions[:, :1], positions[:, 1:]
    side = math.isqrt(length - 1)
    return torch.cat((class_token, _resize_positions(patches, (side, side)).flatten(1, 2)), 1)
