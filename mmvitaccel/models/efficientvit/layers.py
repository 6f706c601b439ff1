"""Layers of Microsoft's EfficientViT (Liu et al., CVPR 2023, arXiv:2305.07027).

Attribute names are those of the released checkpoints, so that these load without a key map.
Shapes: B images, C channels, H x W a feature map, N = H * W tokens, R the window's side.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor, nn

from mmvitaccel.models.efficientvit.plain import why_not_folded

KEY_DIMS = 16
"""Channels of a query and of a key in every head of every published model."""


class ConvNorm(nn.Module):
    """A convolution without bias and the BatchNorm after it, which can be folded into one.

    Folded, the module holds a plain convolution with bias under the same name ``c``. A state
    dict with the BatchNorm still in it loads into a folded module: it is folded on the way.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Side of the kernel; the padding keeps the size at stride 1.
        stride: Stride of the convolution.
        groups: Groups of the convolution.
        norm_weight: Initial weight of the BatchNorm; 0 makes a residual branch start as zero.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        groups: int = 1,
        norm_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.c = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding=kernel_size // 2,
            groups=groups,
            bias=False,
        )
        self.bn = nn.BatchNorm2d(out_channels)
        nn.init.constant_(self.bn.weight, norm_weight)

    @property
    def is_deployed(self) -> bool:
        """Whether the BatchNorm has been folded into the convolution."""
        return isinstance(self.bn, nn.Identity)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H / stride, W / stride)."""
        return self.bn(self.c(x))

    @torch.no_grad()
    def switch_to_deploy(self) -> None:
        """Fold the BatchNorm into the convolution; a second call changes nothing.

        Raises:
            ValueError: They do more than their weights say: a wrapper, a hook, a parametrization.
        """
        if self.is_deployed:
            return
        bn, reason = self.bn, why_not_folded(self.c, self.bn)
        if reason is not None:
            raise ValueError(
                f"EfficientViT: a ConvNorm with {self.c.out_channels} channels cannot be folded: "
                f"{reason}, which would be dropped; merge it into the weights or take it off first."
            )
        weight, bias = fold_norm(
            self.c.weight, bn.weight, bn.bias, bn.running_mean, bn.running_var, bn.eps
        )
        self.c.weight.copy_(weight)
        self.c.bias = nn.Parameter(bias, requires_grad=self.c.weight.requires_grad)
        self.bn = nn.Identity()

    def fold_state_dict(self, state_dict: dict[str, Tensor], prefix: str) -> None:
        """Replace this module's convolution and BatchNorm in a state dict by the folded pair.

        Args:
            state_dict: Changed in place; left alone where it holds no BatchNorm.
            prefix: What precedes ``c.weight`` in its keys.
        """
        names = [f"bn.{name}" for name in ("weight", "bias", "running_mean", "running_var")]
        if any(prefix + name not in state_dict for name in ["c.weight", *names]):
            return
        norm = [state_dict.pop(prefix + name) for name in names]
        state_dict.pop(prefix + "bn.num_batches_tracked", None)
        weight, bias = fold_norm(state_dict[prefix + "c.weight"], *norm, nn.BatchNorm2d(1).eps)
        state_dict[prefix + "c.weight"] = weight
        state_dict[prefix + "c.bias"] = bias

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: object
    ) -> None:
        """Fold what is loaded into a folded module; refuse folded weights in an unfolded one."""
        if self.is_deployed:
            self.fold_state_dict(state_dict, prefix)
        elif prefix + "c.bias" in state_dict and prefix + "bn.weight" not in state_dict:
            raise RuntimeError(
                f"EfficientViT: the weights of '{prefix}c' have their BatchNorm folded in, but the "
                "model has not; build it with deploy=True or call switch_to_deploy() before "
                "loading them."
            )
        super()._load_from_state_dict(state_dict, prefix, *args)


def fold_norm(
    conv_weight: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Return weight and bias of the convolution that equals a convolution and its BatchNorm.

    Args:
        conv_weight: (C_out, C_in / groups, K, K), without a bias.
        weight: (C_out,), the BatchNorm's; ``bias``, ``mean`` and ``var`` have the same shape.
        bias: (C_out,).
        mean: (C_out,), running mean.
        var: (C_out,), running variance.
        eps: The BatchNorm's epsilon.

    Returns:
        (C_out, C_in / groups, K, K) and (C_out,) in the dtype of ``conv_weight``.
    """
    # reason: in float32 also for half models, whose running variance may be tiny
    scale = weight.float() * torch.rsqrt(var.float() + eps)
    folded = conv_weight.float() * scale[:, None, None, None]
    return folded.to(conv_weight.dtype), (bias.float() - mean.float() * scale).to(conv_weight.dtype)


class Residual(nn.Module):
    """``x + m(x)``, with stochastic depth per image while training.

    Args:
        m: The branch; it keeps the shape.
        drop_path: Probability to leave the branch out for an image.
    """

    def __init__(self, m: nn.Module, drop_path: float = 0.0) -> None:
        super().__init__()
        self.m = m
        self.drop_path = drop_path

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        branch = self.m(x)
        if self.training and self.drop_path > 0:
            keep = 1 - self.drop_path
            branch = branch * branch.new_empty(len(x), 1, 1, 1).bernoulli_(keep).div_(keep)
        return x + branch


class FeedForward(nn.Module):
    """Two 1x1 convolutions with a ReLU between, of ratio 2 (section 3.1)."""

    def __init__(self, embed_dims: int) -> None:
        super().__init__()
        self.pw1 = ConvNorm(embed_dims, 2 * embed_dims)
        self.act = nn.ReLU()
        self.pw2 = ConvNorm(2 * embed_dims, embed_dims, norm_weight=0.0)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        return self.pw2(self.act(self.pw1(x)))


class SqueezeExcite(nn.Module):
    """Channels weighted by a gate from their means; a quarter of the channels inside."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // 4, 1)
        self.act = nn.ReLU()
        self.fc2 = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        gate = self.fc2(self.act(self.fc1(x.mean((2, 3), keepdim=True))))
        return x * gate.sigmoid()


class PatchMerging(nn.Module):
    """Inverted residual bottleneck that halves the resolution between two stages."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        hidden = 4 * in_channels
        self.conv1 = ConvNorm(in_channels, hidden)
        self.act = nn.ReLU()
        self.conv2 = ConvNorm(hidden, hidden, 3, stride=2, groups=hidden)
        self.se = SqueezeExcite(hidden)
        self.conv3 = ConvNorm(hidden, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, ceil(H / 2), ceil(W / 2))."""
        x = self.act(self.conv1(x))
        return self.conv3(self.se(self.act(self.conv2(x))))


class CascadedGroupAttention(nn.Module):
    """Attention whose heads see one channel group each, plus the head before (eq. 2 and 3).

    A learned bias per head and absolute offset is added to the logits. It is looked up in
    every forward, so that it is never stale after a load or a cast.

    Args:
        embed_dims: Channels C.
        num_heads: Heads, one for each group of C / num_heads channels.
        window_size: Side R of the largest map that is attended; the bias table is R * R.
        kernels: Kernel of the depthwise convolution on the query, one for each head.
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
        """Attend over the whole of (B, C, H, W), where neither H nor W exceeds the window."""
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
        """Return the (num_heads, N, N) biases between the tokens of a height x width map."""
        side, index = self.window_size, self.attention_bias_idxs
        # reason: a graph made for any size has to cut the table for the size that it is given
        if torch.onnx.is_in_onnx_export() or height != side or width != side:
            index = index.view(side, side, side, side)
            index = index[:height, :width, :height, :width]
            index = index.reshape(height * width, height * width)
        return self.attention_biases[:, index]

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: object
    ) -> None:
        """Resize a bias table of another window; keep the own index whatever is stored."""
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
        # reason: it follows from the window alone, and timm's checkpoints leave it out
        state_dict[prefix + "attention_bias_idxs"] = self.attention_bias_idxs
        super()._load_from_state_dict(state_dict, prefix, *args)


def offset_index(window_size: int) -> Tensor:
    """Return (R * R, R * R) int64: the place of |dy|, |dx| in the row-major R x R bias table."""
    side = torch.arange(window_size)
    offset = (side[:, None] - side[None, :]).abs()  # R, R
    # R, 1, R, 1 and 1, R, 1, R -> R * R, R * R
    index = offset[:, None, :, None] * window_size + offset[None, :, None, :]
    return index.reshape(window_size**2, window_size**2)


def resize_biases(biases: Tensor, window_size: int) -> Tensor:
    """Resize a (num_heads, S * S) bias table to (num_heads, R * R), as the paper's detectors do.

    A table that is not square, or of the right size already, is returned itself.
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
    """Cascaded group attention inside windows of R x R tokens.

    A map that fits into the window attends within itself; any other is padded with zeros on the
    right and below to a multiple of the window, and the padding takes part in the attention, as
    in the published model.
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
            # reason: an exported graph holds for every size, so it has no branch in Python
            fits = (height <= side) & (width <= side)
            tall, wide = (torch.where(fits, length, side) for length in (height, width))
            return self._in_windows(x, tall, wide)
        if height <= side and width <= side:
            return self.attn(x)
        return self._in_windows(x, side, side)

    def _in_windows(self, x: Tensor, tall: int, wide: int) -> Tensor:
        """Attend in windows of tall x wide tokens; sizes are 0-dim tensors in an export."""
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


class EfficientViTBlock(nn.Module):
    """Sandwich block: window attention between depthwise convolutions and feed-forward layers."""

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        window_size: int,
        kernels: tuple[int, ...],
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        attention = WindowAttention(embed_dims, num_heads, window_size, kernels)
        self.dw0 = Residual(depthwise(embed_dims, norm_weight=0.0), drop_path)
        self.ffn0 = Residual(FeedForward(embed_dims), drop_path)
        self.mixer = Residual(attention, drop_path)
        self.dw1 = Residual(depthwise(embed_dims, norm_weight=0.0), drop_path)
        self.ffn1 = Residual(FeedForward(embed_dims), drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        return self.ffn1(self.dw1(self.mixer(self.ffn0(self.dw0(x)))))


def depthwise(channels: int, norm_weight: float = 1.0) -> ConvNorm:
    """Return the depthwise 3x3 convolution with BatchNorm that mixes neighbours."""
    return ConvNorm(channels, channels, 3, groups=channels, norm_weight=norm_weight)


def patch_embedding(embed_dims: int, in_channels: int = 3) -> nn.Sequential:
    """Return four 3x3 convolutions of stride 2 with ReLU between: images to stride 16."""
    widths = (in_channels, embed_dims // 8, embed_dims // 4, embed_dims // 2, embed_dims)
    layers: list[nn.Module] = []
    for before, after in zip(widths[:-1], widths[1:]):
        layers += [ConvNorm(before, after, 3, stride=2), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def subsampling(in_channels: int, out_channels: int, drop_path: float) -> list[nn.Module]:
    """Return the three modules between two stages: mix, halve the resolution, mix."""

    def mix(channels: int) -> nn.Sequential:
        return nn.Sequential(
            Residual(depthwise(channels), drop_path), Residual(FeedForward(channels), drop_path)
        )

    return [mix(in_channels), PatchMerging(in_channels, out_channels), mix(out_channels)]
