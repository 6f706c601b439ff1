"""A convolution with a BatchNorm that can be folded into it.

Attribute names equal those of the released checkpoints, which load without renaming.
Shapes: B images, C channels, H x W feature map.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmvitaccel.models.efficientvit.plain import why_not_folded


class ConvNorm(nn.Module):
    """A convolution without bias, and a BatchNorm that can be folded into it.

    After folding, ``c`` is a convolution with bias. A state dict with an unfolded BatchNorm can be
    loaded into a folded module: it is folded while loading.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Side of the kernel; the padding preserves the size at stride 1.
        stride: Stride of the convolution.
        groups: Groups of the convolution.
        norm_weight: Initial weight of the BatchNorm; with 0, a residual branch starts at zero.
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
        """(B, in_channels, H, W) -> (B, out_channels, ceil(H / stride), ceil(W / stride))."""
        return self.bn(self.c(x))

    @torch.no_grad()
    def switch_to_deploy(self) -> None:
        """Fold the BatchNorm into the convolution; a second call has no effect.

        Raises:
            ValueError: The convolution or the BatchNorm has a wrapper, a hook, a replaced
                ``forward`` or a parametrization, which would have no effect.
        """
        if self.is_deployed:
            return
        bn, reason = self.bn, why_not_folded(self.c, self.bn)
        if reason is not None:
            raise ValueError(
                f"EfficientViT: a ConvNorm with {self.c.out_channels} channels cannot be folded: "
                f"{reason}, which would have no effect; merge it into the weights or remove it "
                "first."
            )
        weight, bias = fold_norm(
            self.c.weight, bn.weight, bn.bias, bn.running_mean, bn.running_var, bn.eps
        )
        self.c.weight.copy_(weight)
        self.c.bias = nn.Parameter(bias, requires_grad=self.c.weight.requires_grad)
        self.bn = nn.Identity()

    def fold_state_dict(self, state_dict: dict[str, Tensor], prefix: str) -> None:
        """Fold the BatchNorm of this module in a state dict.

        Args:
            state_dict: Changed in place, if it has the BatchNorm.
            prefix: Prefix of this module's names in it.
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
        """Fold weights for a folded module; refuse folded weights for an unfolded one."""
        if self.is_deployed:
            self.fold_state_dict(state_dict, prefix)
        elif prefix + "c.bias" in state_dict and prefix + "bn.weight" not in state_dict:
            raise RuntimeError(
                f"EfficientViT: the weights of '{prefix}c' have a folded BatchNorm, but the model "
                "does not; build it with deploy=True or call switch_to_deploy() before loading "
                "them."
            )
        super()._load_from_state_dict(state_dict, prefix, *args)


def fold_norm(
    conv_weight: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Fold a BatchNorm into the convolution before it.

    Args:
        conv_weight: Weight of the convolution, which has no bias: (C_out, C_in / groups, K, K).
        weight: Weight of the BatchNorm, (C_out,).
        bias: Bias of the BatchNorm, (C_out,).
        mean: Running mean, (C_out,).
        var: Running variance, (C_out,).
        eps: Epsilon of the BatchNorm.

    Returns:
        Weight (C_out, C_in / groups, K, K) and bias (C_out,), in the dtype of ``conv_weight``.
    """
    # In float32 even for models in half precision, whose running variance may be tiny
    scale = weight.float() * torch.rsqrt(var.float() + eps)
    folded = conv_weight.float() * scale[:, None, None, None]
    return folded.to(conv_weight.dtype), (bias.float() - mean.float() * scale).to(conv_weight.dtype)
