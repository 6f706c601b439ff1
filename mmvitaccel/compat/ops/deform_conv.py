"""Deformable convolution, plain and modulated, by ``torchvision.ops.deform_conv2d``.

Both libraries lay out offsets as (y, x) pairs per kernel position and deformable group, and both
groups follow from the shapes, so that only the calling convention differs.
"""

from __future__ import annotations

import torch
import torchvision

from mmvitaccel.compat.ops.gradients import gradients
from mmvitaccel.compat.ops.precision import widen

_OUTSIDE = 1e6  # pixels: outside of any map, and a whole number of 32 bits holds it


def deform_conv_forward(
    input: torch.Tensor,
    weight: torch.Tensor,
    offset: torch.Tensor,
    output: torch.Tensor,
    columns: torch.Tensor,
    ones: torch.Tensor,
    **geometry: int,
) -> None:
    """Fill ``output`` (B, C_out, H_out, W_out) with the deformable convolution.

    Args:
        input: (B, C_in, H, W).
        weight: (C_out, C_in / groups, kH, kW).
        offset: (B, 2 * deform_groups * kH * kW, H_out, W_out) in pixels.
        output: Filled.
        columns: Workspace of the compiled operator; unused.
        ones: Workspace of the compiled operator; unused.
        geometry: mmcv's ``dH, dW, padH, padW, dilationH, dilationW`` and what the shapes tell.
    """
    output.copy_(_convolve(widen(input), widen(offset), widen(weight), **_plain(geometry)))


def deform_conv_backward_input(
    input: torch.Tensor,
    offset: torch.Tensor,
    grad_output: torch.Tensor,
    grad_input: torch.Tensor,
    grad_offset: torch.Tensor,
    weight: torch.Tensor,
    columns: torch.Tensor,
    **geometry: int,
) -> None:
    """Fill the gradients of the input and of the offsets.

    Args:
        input: (B, C_in, H, W).
        offset: (B, 2 * deform_groups * kH * kW, H_out, W_out).
        grad_output: (B, C_out, H_out, W_out).
        grad_input: As ``input``, filled.
        grad_offset: As ``offset``, filled.
        weight: (C_out, C_in / groups, kH, kW).
        columns: Workspace of the compiled operator; unused.
        geometry: As in the forward.
    """
    fixed = {"weight": widen(weight), **_plain(geometry)}
    grads = gradients(lambda x, offset: _convolve(x, offset, **fixed), (input, offset), grad_output)
    for target, grad in zip((grad_input, grad_offset), grads):
        target.copy_(grad)


def deform_conv_backward_parameters(
    input: torch.Tensor,
    offset: torch.Tensor,
    grad_output: torch.Tensor,
    grad_weight: torch.Tensor,
    columns: torch.Tensor,
    ones: torch.Tensor,
    scale: float,
    **geometry: int,
) -> None:
    """Add ``scale`` times the weight's gradient to ``grad_weight``.

    Args:
        input: (B, C_in, H, W).
        offset: (B, 2 * deform_groups * kH * kW, H_out, W_out).
        grad_output: (B, C_out, H_out, W_out).
        grad_weight: (C_out, C_in / groups, kH, kW), added to.
        columns: Workspace of the compiled operator; unused.
        ones: Workspace of the compiled operator; unused.
        scale: Factor of the gradient.
        geometry: As in the forward.
    """
    x, offset, plain = widen(input), widen(offset), _plain(geometry)
    # The convolution is linear in its weight: where the gradient is taken does not matter.
    (grad,) = gradients(
        lambda weight: _convolve(x, offset, weight, **plain),
        (torch.zeros_like(grad_weight),),
        grad_output,
    )
    grad_weight.add_(grad.to(grad_weight.dtype), alpha=scale)


def modulated_deform_conv_forward(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    ones: torch.Tensor,
    offset: torch.Tensor,
    mask: torch.Tensor,
    output: torch.Tensor,
    columns: torch.Tensor,
    with_bias: bool,
    **geometry: int,
) -> None:
    """Fill ``output`` with the convolution whose samples are also scaled by ``mask``.

    Args:
        input: (B, C_in, H, W).
        weight: (C_out, C_in / groups, kH, kW).
        bias: (C_out,), or empty.
        ones: Workspace of the compiled operator; unused.
        offset: (B, 2 * deform_groups * kH * kW, H_out, W_out) in pixels.
        mask: (B, deform_groups * kH * kW, H_out, W_out).
        output: (B, C_out, H_out, W_out), filled.
        columns: Workspace of the compiled operator; unused.
        with_bias: Whether the bias is added.
        geometry: mmcv's ``stride_h, stride_w, pad_h, ...`` and what the shapes tell.
    """
    output.copy_(
        _convolve(
            widen(input),
            widen(offset),
            widen(weight),
            mask=widen(mask),
            bias=widen(bias) if with_bias else None,
            **_modulated(geometry),
        )
    )


def modulated_deform_conv_backward(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    ones: torch.Tensor,
    offset: torch.Tensor,
    mask: torch.Tensor,
    columns: torch.Tensor,
    grad_input: torch.Tensor,
    grad_weight: torch.Tensor,
    grad_bias: torch.Tensor,
    grad_offset: torch.Tensor,
    grad_mask: torch.Tensor,
    grad_output: torch.Tensor,
    with_bias: bool,
    **geometry: int,
) -> None:
    """Fill the gradients of all operands.

    Args:
        input: (B, C_in, H, W).
        weight: (C_out, C_in / groups, kH, kW).
        bias: (C_out,), or empty.
        ones: Workspace of the compiled operator; unused.
        offset: (B, 2 * deform_groups * kH * kW, H_out, W_out).
        mask: (B, deform_groups * kH * kW, H_out, W_out).
        columns: Workspace of the compiled operator; unused.
        grad_input: As ``input``, filled.
        grad_weight: As ``weight``, filled.
        grad_bias: As ``bias``, filled where there is one.
        grad_offset: As ``offset``, filled.
        grad_mask: As ``mask``, filled.
        grad_output: (B, C_out, H_out, W_out).
        with_bias: Whether there is a bias.
        geometry: As in the forward.
    """
    plain = _modulated(geometry)
    grads = gradients(
        lambda x, offset, weight, mask: _convolve(x, offset, weight, mask=mask, **plain),
        (input, offset, weight, mask),
        grad_output,
    )
    for target, grad in zip((grad_input, grad_offset, grad_weight, grad_mask), grads):
        target.copy_(grad)
    if with_bias:
        grad_bias.copy_(widen(grad_output).sum(dim=(0, 2, 3)))


def _convolve(
    x: torch.Tensor, offset: torch.Tensor, weight: torch.Tensor, **options: object
) -> torch.Tensor:
    # At an offset of NaN, as in a training that diverges, torchvision reads memory that is
    # not the map's and ends the process; mmcv takes it as outside of the map, where samples are 0.
    offset = offset.nan_to_num(nan=_OUTSIDE, posinf=_OUTSIDE, neginf=-_OUTSIDE)
    return torchvision.ops.deform_conv2d(x, offset, weight, **options)


def _plain(geometry: dict[str, int]) -> dict[str, tuple[int, int]]:
    """Translate mmcv's names for the plain convolution, each a (vertical, horizontal) pair."""
    return {
        "stride": (geometry["dH"], geometry["dW"]),
        "padding": (geometry["padH"], geometry["padW"]),
        "dilation": (geometry["dilationH"], geometry["dilationW"]),
    }


def _modulated(geometry: dict[str, int]) -> dict[str, tuple[int, int]]:
    """Translate mmcv's names for the modulated convolution."""
    return {
        "stride": (geometry["stride_h"], geometry["stride_w"]),
        "padding": (geometry["pad_h"], geometry["pad_w"]),
        "dilation": (geometry["dilation_h"], geometry["dilation_w"]),
    }
