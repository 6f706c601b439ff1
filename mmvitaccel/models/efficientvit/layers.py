"""Blocks and other layers of Microsoft's EfficientViT (Liu et al., CVPR 2023, arXiv:2305.07027).

Attribute names equal those of the released checkpoints, which load without renaming.
Shapes: B images, C channels, H x W feature map.
"""

from __future__ import annotations

from torch import Tensor, nn

from mmvitaccel.models.efficientvit.attention import WindowAttention
from mmvitaccel.models.efficientvit.conv_norm import ConvNorm


class Residual(nn.Module):
    """``x + m(x)``, with stochastic depth per image in training.

    Args:
        m: The branch, which preserves the shape.
        drop_path: Probability of dropping the branch for an image.
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
    """Two 1x1 convolutions with a ReLU between them and an expansion ratio of 2 (section 3.1)."""

    def __init__(self, embed_dims: int) -> None:
        super().__init__()
        self.pw1 = ConvNorm(embed_dims, 2 * embed_dims)
        self.act = nn.ReLU()
        self.pw2 = ConvNorm(2 * embed_dims, embed_dims, norm_weight=0.0)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        return self.pw2(self.act(self.pw1(x)))


class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation with a reduction ratio of 4."""

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


class EfficientViTBlock(nn.Module):
    """Sandwich block: window attention between depthwise convolutions and feed-forward layers.

    Args:
        embed_dims: Channels C.
        num_heads: Number of heads.
        window_size: Side R of a window, in tokens.
        kernels: See :class:`CascadedGroupAttention`.
        drop_path: Probability of dropping each of the five residual branches for an image.
    """

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
    """Return a depthwise 3x3 convolution with BatchNorm."""
    return ConvNorm(channels, channels, 3, groups=channels, norm_weight=norm_weight)


def patch_embedding(embed_dims: int, in_channels: int = 3) -> nn.Sequential:
    """Return the patch embedding: four 3x3 convolutions of stride 2 with ReLU between them."""
    widths = (in_channels, embed_dims // 8, embed_dims // 4, embed_dims // 2, embed_dims)
    layers: list[nn.Module] = []
    for before, after in zip(widths[:-1], widths[1:]):
        layers += [ConvNorm(before, after, 3, stride=2), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def subsampling(in_channels: int, out_channels: int, drop_path: float) -> list[nn.Module]:
    """Return the three modules between two stages; the second halves the resolution."""

    def mix(channels: int) -> nn.Sequential:
        return nn.Sequential(
            Residual(depthwise(channels), drop_path), Residual(FeedForward(channels), drop_path)
        )

    return [mix(in_channels), PatchMerging(in_channels, out_channels), mix(out_channels)]
