"""Output of attention, read by gates in blocks of tokens.

Shapes: B batch, h heads, N tokens, D channels of a head; M tokens selected.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmvitaccel.core.eventful.gates.selection import Selection


@dataclass(frozen=True)
class Output:
    """Output of attention in one frame; its tensors belong to the mode, which changes them later.

    Attributes:
        numerator: (B, h, N, D).
        denominator: (B, h, N) divisor of the numerator, or None.
        dtype: Dtype of the returned tokens.
    """

    numerator: Tensor
    denominator: Tensor | None
    dtype: torch.dtype

    def block(self, rows: slice) -> Tensor:
        """Consecutive tokens, (B, n, h * D)."""
        numerator = self.numerator[:, :, rows]
        denominator = None if self.denominator is None else self.denominator[:, :, rows]
        return self._divided(numerator, denominator)

    def of(self, selection: Selection) -> Tensor:
        """The selected tokens (B, M, h * D), owned by the caller."""
        denominator = self.denominator
        if denominator is not None:
            denominator = selection.gather(denominator.unsqueeze(-1)).squeeze(-1)
        out = self._divided(selection.gather(self.numerator), denominator)
        return out.clone() if out.data_ptr() == self.numerator.data_ptr() else out

    def _divided(self, out: Tensor, denominator: Tensor | None) -> Tensor:
        if denominator is not None:
            out = out / denominator.unsqueeze(-1)
        return out.to(self.dtype).transpose(1, 2).flatten(2)  # (B, h, n, D) -> (B, n, h * D)
