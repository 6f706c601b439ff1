"""GroupNorm over a stored map, with the statistics of the last completely computed frame.

GroupNorm (arXiv 1803.08494) subtracts the mean of a group of channels over the whole map and
divides by its standard deviation, so one changed pixel slightly changes all pixels. With fixed
statistics it is pixel-wise: exact in the frame of the statistics, approximate in later frames.

Shapes: B batch; C channels; h, w of the map; M pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Held:
    """Pixel-wise scale and shift of a GroupNorm with the statistics of an earlier map.

    Attributes:
        scale: (B, C), at least single precision.
        shift: (B, C), added to the scaled pixels.
        dtype: Dtype of the result.
    """

    scale: Tensor
    shift: Tensor
    dtype: torch.dtype

    def on_map(self, x: Tensor) -> Tensor:
        """Normalize a map (B, C, h, w)."""
        scale, shift = self.scale[..., None, None], self.shift[..., None, None]
        return torch.addcmul(shift, x.to(scale.dtype), scale).to(self.dtype)

    def on_rows(self, x: Tensor, entry: Tensor) -> Tensor:
        """Normalize pixels (M, C), with the batch entry (M,) of each."""
        scale, shift = self.scale, self.shift
        if len(scale) > 1:
            scale, shift = scale.index_select(0, entry), shift.index_select(0, entry)
        return torch.addcmul(shift, x.to(scale.dtype), scale).to(self.dtype)


@dataclass(frozen=True)
class GroupNorm:
    """A GroupNorm of a chain of steps.

    Attributes:
        num_groups: Number of groups of the C channels.
        weight: (C,) or None.
        bias: (C,) or None.
        eps: Added to the variance.
    """

    num_groups: int
    weight: Tensor | None
    bias: Tensor | None
    eps: float

    def normalize(self, x: Tensor) -> tuple[Tensor, Held]:
        """Normalize a map (B, C, h, w) with its own statistics, and return both."""
        whole = F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)
        exact = x.to(torch.promote_types(x.dtype, torch.float32))
        groups = exact.reshape(len(x), self.num_groups, -1)
        variance, mean = torch.var_mean(groups, 2, correction=0)
        size = x.shape[1] // self.num_groups
        scale = (variance + self.eps).rsqrt().repeat_interleave(size, 1)
        shift = -mean.repeat_interleave(size, 1) * scale
        if self.weight is not None:
            scale, shift = scale * self.weight, shift * self.weight
        if self.bias is not None:
            shift = shift + self.bias
        return whole, Held(scale, shift, whole.dtype)
