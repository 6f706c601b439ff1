"""Linear products in half precision, on processors that multiply single precision faster.

Weights are converted at each use, for a few outputs at a time, and not stored. For many rows this
costs less than the slower product, and a stored copy could be outdated.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmvitaccel.core.kernels.library.instruction_sets import multiplies_half_faster
from mmvitaccel.core.kernels.operators import HALF
from mmvitaccel.core.torch_modes import autocast_dtype, is_compiling

# Number of outputs whose weights are converted together; 768 x 768 values fit into the cache.
_OUTPUTS = 768
# For fewer rows the conversion takes longer than the product saves (measured).
_LEAST_ROWS = 128


@functools.cache
def _single_is_faster() -> bool:
    return not multiplies_half_faster()


def converts(x: Tensor) -> bool:
    """Whether :func:`half_linear` may run a layer with such inputs."""
    cast = autocast_dtype("cpu") == HALF
    return x.device.type == "cpu" and (cast or x.dtype == HALF) and _single_is_faster()


def half_linear(layer: nn.Linear, x: Tensor) -> Tensor | None:
    """Run the layer in single precision with half-precision output, if that is faster.

    Args:
        layer: The layer, with float32 or bfloat16 weights.
        x: (..., in features), bfloat16, or any within autocast to it.

    Returns:
        (..., out features) bfloat16; None if the layer itself should be called.
    """
    return half_product(x, layer.weight, layer.bias)


def half_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor | None:
    """:func:`half_linear` of weights (out features, in features) and a bias or None."""
    if x.device.type != "cpu" or torch.is_grad_enabled() or is_compiling():
        return None
    cast = autocast_dtype("cpu") == HALF
    if not (cast or x.dtype == weight.dtype == HALF) or not _single_is_faster():
        return None
    if weight.dtype == HALF and x[..., 0].numel() < _LEAST_ROWS:
        return None
    with torch.autocast("cpu", enabled=False):
        x, bias = x.float(), None if bias is None else bias.float()
        if weight.dtype != HALF:
            return F.linear(x, weight, bias).to(HALF)
        out = x.new_empty(*x.shape[:-1], len(weight), dtype=HALF)
        for first in range(0, len(weight), _OUTPUTS):
            some = slice(first, first + _OUTPUTS)
            out[..., some] = F.linear(x, weight[some].float(), None if bias is None else bias[some])
    return out
