"""A convolution and its BatchNorm, which can be folded into one.

Attribute names are those of the released checkpoints, so that these load without a key map.
Shapes: B images, C channels, H x W a feature map.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmvitaccel.models.efficientvit.plain import why_not_folded


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
