"""The simple feature pyramid of ViTDet (arXiv 2203.16527, section 3)."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from mmvitaccel.arguments import init_config, number, numbers, refuse, whole_number
from mmvitaccel.registry import MODELS


@MODELS.register_module()
class LN2d(nn.LayerNorm):
    """LayerNorm over the channels of a (B, C, H, W) map.

    Args:
        num_channels: Channels C.
        eps: Epsilon. Defaults to 1e-6.

    Raises:
        ValueError: An argument is out of range.
    """

    _abbr_ = "ln"

    def __init__(self, num_channels: int, eps: float = 1e-6) -> None:
        num_channels = whole_number("LN2d", "num_channels", num_channels, least=1)
        super().__init__(num_channels, eps=number("LN2d", "eps", eps, above=0))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        x = F.layer_norm(
            x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps
        )
        return x.permute(0, 3, 1, 2)


class _ConvNorm(nn.Conv2d):
    """A convolution without bias and its norm, which is a submodule of it as in the release."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, eps: float) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False
        )
        self.norm = LN2d(out_channels, eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(super().forward(x))


@MODELS.register_module()
class SimpleFPN(BaseModule):
    """Computes pyramid levels from one map, each with a path of its own.

    Args:
        in_channels: Channels of the map. Defaults to 768.
        out_channels: Channels of every level. Defaults to 256.
        scale_factors: Size of each level relative to the map: 4, 2, 1 or 0.5.
        patch_size: Stride of the map in pixels; paths are named ``simfp_i`` for stride 2^i.
        num_outs: Number of output levels. Levels after the last path are subsampled from the
            previous level. Defaults to 5.
        norm_eps: Epsilon of the LayerNorms. Defaults to 1e-6; mmdet's ViTDet has 1e-5.
        init_cfg: Initialization config of mmengine.

    Raises:
        ValueError: A scale factor is unknown or repeated, ``num_outs`` is less than the number of
            scale factors, or another argument is out of range.
    """

    def __init__(
        self,
        in_channels: int = 768,
        out_channels: int = 256,
        scale_factors: Sequence[float] = (4.0, 2.0, 1.0, 0.5),
        patch_size: int = 16,
        num_outs: int = 5,
        norm_eps: float = 1e-6,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        owner = "SimpleFPN"
        super().__init__(init_config(owner, init_cfg))
        scale_factors = numbers(owner, "scale_factors", scale_factors, above=0)
        if len(set(scale_factors)) < len(scale_factors):
            refuse(owner, "scale_factors", scale_factors, "different numbers")
        in_channels = whole_number(
            owner, "in_channels", in_channels, least=max(int(max(scale_factors)), 1),
            why="a map that is enlarged has that many times fewer channels",
        )  # fmt: skip
        out_channels = whole_number(owner, "out_channels", out_channels, least=1)
        patch_size = whole_number(owner, "patch_size", patch_size, least=1, of="pixels")
        norm_eps = number(owner, "norm_eps", norm_eps, above=0)
        num_outs = whole_number(owner, "num_outs", num_outs, least=1)
        if num_outs < len(scale_factors):
            raise ValueError(
                f"SimpleFPN: num_outs={num_outs} is below the {len(scale_factors)} "
                f"scale_factors={scale_factors}; set num_outs >= {len(scale_factors)}."
            )
        self.num_outs = num_outs
        self.paths = []
        for scale in scale_factors:
            layers, channels = _resampling(in_channels, scale, norm_eps)
            path = nn.Sequential(
                *layers,
                _ConvNorm(channels, out_channels, 1, norm_eps),
                _ConvNorm(out_channels, out_channels, 3, norm_eps),
            )
            name = f"simfp_{int(patch_size / scale).bit_length() - 1}"
            self.add_module(name, path)
            self.paths.append(name)

    def forward(self, inputs: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the levels.

        Args:
            inputs: A map (B, in_channels, H, W), or a sequence of which the last entry is used.

        Returns:
            ``num_outs`` maps (B, out_channels, ., .) in the order of ``scale_factors``.
        """
        x = inputs if isinstance(inputs, Tensor) else inputs[-1]
        levels = [getattr(self, name)(x) for name in self.paths]
        while len(levels) < self.num_outs:
            levels.append(F.max_pool2d(levels[-1], kernel_size=1, stride=2))
        return tuple(levels)


def _resampling(channels: int, scale: float, eps: float) -> tuple[list[nn.Module], int]:
    """Return layers that scale the size of a map, and the number of their output channels."""
    if scale == 4.0:
        first = nn.ConvTranspose2d(channels, channels // 2, 2, stride=2)
        second = nn.ConvTranspose2d(channels // 2, channels // 4, 2, stride=2)
        return [first, LN2d(channels // 2, eps), nn.GELU(), second], channels // 4
    if scale == 2.0:
        return [nn.ConvTranspose2d(channels, channels // 2, 2, stride=2)], channels // 2
    if scale == 1.0:
        return [], channels
    if scale == 0.5:
        return [nn.MaxPool2d(2, 2)], channels
    raise ValueError(
        f"SimpleFPN: the scale factor {scale} in scale_factors is not supported; use 4, 2, 1 or "
        "0.5."
    )
