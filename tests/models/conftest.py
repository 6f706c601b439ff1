"""What the models' tests share."""

from __future__ import annotations

from typing import Callable

import pytest
import torch
from torch import nn


@pytest.fixture
def randomise() -> Callable[[nn.Module], nn.Module]:
    """Return a function that fills parameters and BatchNorm statistics with seeded noise.

    New EfficientViT blocks are the identity (BatchNorm weights and biases begin at 0), which
    would let a test pass whatever a block computes.
    """

    def fill(module: nn.Module, seed: int = 0) -> nn.Module:
        noise = torch.Generator().manual_seed(seed)
        state = module.state_dict()
        for name, value in state.items():
            if not value.is_floating_point():
                continue
            sample = torch.randn(value.shape, generator=noise)
            if name.endswith("running_var"):
                sample = sample.abs() + 0.5
            elif value.dim() == 4:
                sample = sample / value[0].numel() ** 0.5
            else:
                sample = sample * 0.5
            state[name] = sample
        module.load_state_dict(state)
        return module

    return fill
