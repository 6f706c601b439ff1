"""The precision in which the replaced operators compute."""

from __future__ import annotations

import torch


def widen(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor in float32 if it is narrower, else as it is (float64 stays).

    Args:
        tensor: Any floating-point tensor.
    """
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
