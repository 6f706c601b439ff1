"""Still images for tests with a moving camera."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def still(side: int, seed: int = 0) -> Tensor:
    """Return an image (1, 3, side, side) with random structures of 4 to 64 pixels.

    Its values are float32, about -10 to 10.

    Args:
        side: Height and width in pixels.
        seed: Seed of the structures.
    """
    generator = torch.Generator().manual_seed(seed)
    whole = torch.zeros(1, 3, side, side)
    for coarse in (4, 8, 16, 32, 64):
        cells = side // coarse + 2
        noise = torch.randn(1, 3, cells, cells, generator=generator)
        whole += F.interpolate(noise, (side, side), mode="bilinear")
    return whole
