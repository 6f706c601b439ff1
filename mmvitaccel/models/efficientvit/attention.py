"""Cascaded group attention in windows (Liu et al., CVPR 2023, arXiv:2305.07027, section 3.2).

Attribute names equal those of the released checkpoints, which load without renaming.
Shapes: B images, C channels, H x W feature map, N = H * W tokens, R side of a window.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor, nn

from mmvitaccel.models.efficientvit.conv_norm import ConvNorm

KEY_DIMS = 16
"""Channels of queries and keys in each head, in all published models."""


class CascadedGroupAttention(nn.Module):
    """Attention in which each head reads one channel group plus the previous head's output.

    See equations 2 and 3. A learned bias for each head and absolute offset is added to the logits.
    It is looked up in every forward pass, so it is always up to date after loading or casting.

    Args:
        embed_dims: Channels C.
        num_heads: Number of heads, one for each group of C / num_heads channels.
        window_size: Side R of the largest map, in tokens; the bias table has R * R entries.
        kernels: Kernel size of the depthwise convolution on the query, for each head.
    """

    def __init__(
        self, embed_dims: int, num_heads: int, window_size: int, kernels: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window_size = window_size
        self.head_dims = embed_dims // num_heads
        self.qkvs = nn.ModuleList(
            ConvNorm(self.head_dims, 2 * KEY_DIMS + self.head_dims) for _ in range(num_heads)
        )
        self.dws = nn.ModuleList(
            ConvNorm(KEY_DIMS, KEY_DIMS, kernel, groups=KEY_DIMS) for kernel in kernels[:num_heads]
        )
        self.proj = nn.Sequential(nn.ReLU(), ConvNorm(embed_dims, embed_dims, norm_weight=0.0))
        self.attention_biases = nn.Parameter(torch.zeros(num_heads, window_size**2))
        self.register_buffer("attention_bias_idxs", offset_index(window_size))

    def forward(self, x: Tensor) -> Tensor:
        """Attention over a whole map, (B, C, H, W) -> (B, C, H, W); H and W are at most R."""
        height, width = x.shape[2:]
        biases = self.attention_bias(height, width)
        groups = x.chunk(self.num_heads, dim=1)
        split = (KEY_DIMS, KEY_DIMS, self.head_dims)
        head, heads = groups[0], []
        for i, (qkv, dw) in enumerate(zip(self.qkvs, self.dws)):
            if i > 0:
                head = head + groups[i]
            q, k, v = qkv(head).split(split, dim=1)
            q = dw(q).flatten(2).transpose(1, 2)  # B, 16, H, W -> B, N, 16
            logits = torch.bmm(q, k.flatten(2))  # B, N, N
            attn = torch.add(biases[i], logits, alpha=KEY_DIMS**-0.5).softmax(dim=-1)
            # B, C / heads, N @ B, N, N -> B, C / heads, H, W
            head = torch.bmm(v.flatten(2), attn.transpose(1, 2))
            head = head.view(-1, self.head_dims, height, width)
            heads.append(head)
        return self.proj(torch.cat(heads, dim=1))

    def attention_bias(self, height: int, width: int) -> Tensor:
        """Return the biases (num_heads, N, N) between the tokens of a height x width map."""
        side, index = self.window_size, self.attention_bias_idxs
        # A graph exported for any size has to crop the table to the size of its input
        if torch.onnx.is_in_onnx_export() or height != side or width != side:
            index = index.view(side, side, side, side)
            index = index[:height, :width, :height, :width]
            index = index.reshape(height * width, height * width)
        return self.attention_biases[:, index]

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: object
    ) -> None:
        """Resize a bias table of another window size; ignore the stored index."""
        key = prefix + "attention_biases"
        if key in state_dict:
            resized = resize_biases(state_dict[key], self.window_size)
            if resized is not state_dict[key]:
                print_log(
                    f"EfficientViT: resized '{key}' from {tuple(state_dict[key].shape)} to "
                    f"{tuple(resized.shape)} (bicubic) for a window of {self.window_size}.",
                    logger="current",
                )
            state_dict[key] = resized
        # It depends only on the window size, and timm's checkpoints do not have it
        state_dict[prefix + "attention_bias_idxs"] = self.attention_bias_idxs
        super()._load_from_state_dict(state_dict, prefix, *args)


def offset_index(window_size: int) -> Tensor:
    """Return (R * R, R * R) int64 indices of (|dy|, |dx|) in the row-major R x R bias table."""
    side = torch.arange(window_size)
    offset = (side[:, None] - side[None, :]).abs()  # R, R
    # R, 1, R, 1 and 1, R, 1, R -> R * R, R * R
    index = offset[:, None, :, None] * window_size + offset[None, :, None, :]
    return index.reshape(window_size**2, window_size**2)


def resize_biases(biases: Tensor, window_size: int) -> Tensor:
    """Resize a (num_heads, S * S) bias table to (num_heads, R * R), as the paper's detectors do.

    A table that is not square or already has the right size is returned unchanged.
    """
    if biases.dim() != 2 or biases.shape[1] == window_size**2:
        return biases
    side = round(biases.shape[1] ** 0.5)
    if side**2 != biases.shape[1]:
        return biases
    table = biases.float().view(1, -1, side, side)
    table = F.interpolate(table, size=(window_size, window_size), mode="bicubic")
    return table.view(-1, window_size**2).to(biases.dtype)


class WindowAttention(nn.Module):
    """Cascaded group attention in windows of R x R tokens.

    A map that fits into a window is a window of its own. Any other map is padded with zeros at the
    right and bottom to a multiple of the window; as in the published model, the padding takes part
    in the attention.

    Args:
        embed_dims: Channels C.
        num_heads: Number of heads.
        window_size: Side R of a window, in tokens.
        kernels: See :class:`CascadedGroupAttention`.
    """

    def __init__(
        self, embed_dims: int, num_heads: int, window_size: int, kernels: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.embed_dims = embed_dims
        self.window_size = window_size
        self.attn = CascadedGroupAttention(embed_dims, num_heads, window_size, kernels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        side = self.window_size
        height, width = x.shape[2:]
        if torch.onnx.is_in_onnx_export():
            # An exported graph is valid for every size, so it must not branch in Python
            fits = (height <= side) & (width <= side)
            tall, wide = (torch.where(fits, length, side) for length in (height, width))
            return self._in_windows(x, tall, wide)
        if height <= side and width <= side:
            return self.attn(x)
        return self._in_windows(x, side, side)

    def _in_windows(self, x: Tensor, tall: int, wide: int) -> Tensor:
        """Attention in windows of tall x wide tokens, which are 0-dim tensors in an export."""
        channels = self.embed_dims
        height, width = x.shape[2:]
        rows, columns = (height + tall - 1) // tall, (width + wide - 1) // wide
        below, right = rows * tall - height, columns * wide - width
        if torch.onnx.is_in_onnx_export() or below > 0 or right > 0:
            x = F.pad(x, (0, right, 0, below))
        # B, C, rows * R, columns * R -> B * rows * columns, C, R, R
        x = x.reshape(-1, channels, rows, tall, columns, wide).permute(0, 2, 4, 1, 3, 5)
        x = self.attn(x.reshape(-1, channels, tall, wide))
        # and back -> B, C, rows * R, columns * R -> B, C, H, W
        x = x.reshape(-1, rows, columns, channels, tall, wide).permute(0, 3, 1, 4, 2, 5)
        x = x.reshape(-1, channels, rows * tall, columns * wide)
        return x[:, :, :height, :width]
