"""Gradients of a replaced operator, computed by running it again under autograd.

mmcv splits an operator into a forward and a backward call that share no graph. Recomputation needs
only torchvision's public functions and costs one additional forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from mmvitaccel.compat.ops.precision import widen


def gradients(
    function: Callable[..., torch.Tensor],
    inputs: Sequence[torch.Tensor],
    grad_output: torch.Tensor,
) -> tuple[torch.Tensor, ...]:
    """Return the gradient of ``function(*inputs)`` for each input, in at least float32.

    Args:
        function: A differentiable function of the inputs.
        inputs: Tensors of any shape.
        grad_output: Gradient of the function's result, in its shape.
    """
    with torch.enable_grad():
        leaves = [widen(tensor.detach()).requires_grad_() for tensor in inputs]
        output = function(*leaves)
    return torch.autograd.grad(output, leaves, grad_output.to(output.dtype))
