"""Multi-scale deformable attention (Deformable DETR) by mmcv's own torch implementation.

mmcv calls the compiled operator on a GPU only; its torch version, built on ``grid_sample``, runs
there as well.
"""

from __future__ import annotations

import torch

from mmvitaccel.compat.ops.gradients import gradients
from mmvitaccel.compat.ops.precision import widen


def ms_deform_attn_forward(
    value: torch.Tensor,
    value_spatial_shapes: torch.Tensor,
    value_level_start_index: torch.Tensor,
    sampling_locations: torch.Tensor,
    attention_weights: torch.Tensor,
    im2col_step: int,
) -> torch.Tensor:
    """Return the attention's output, (B, queries, heads * C).

    Args:
        value: (B, keys, heads, C).
        value_spatial_shapes: (levels, 2) heights and widths.
        value_level_start_index: (levels,); follows from the shapes, unused.
        sampling_locations: (B, queries, heads, levels, points, 2) as x, y in [0, 1].
        attention_weights: (B, queries, heads, levels, points).
        im2col_step: Blocking of the compiled operator; unused.
    """
    output = _attend(
        widen(value), widen(sampling_locations), widen(attention_weights), value_spatial_shapes
    )
    return output.to(value.dtype)


def ms_deform_attn_backward(
    value: torch.Tensor,
    value_spatial_shapes: torch.Tensor,
    value_level_start_index: torch.Tensor,
    sampling_locations: torch.Tensor,
    attention_weights: torch.Tensor,
    grad_output: torch.Tensor,
    grad_value: torch.Tensor,
    grad_sampling_loc: torch.Tensor,
    grad_attn_weight: torch.Tensor,
    im2col_step: int,
) -> None:
    """Fill the gradients of the values, the locations and the weights.

    Args:
        value: (B, keys, heads, C).
        value_spatial_shapes: (levels, 2).
        value_level_start_index: (levels,); unused.
        sampling_locations: (B, queries, heads, levels, points, 2).
        attention_weights: (B, queries, heads, levels, points).
        grad_output: (B, queries, heads * C).
        grad_value: As ``value``, filled.
        grad_sampling_loc: As ``sampling_locations``, filled.
        grad_attn_weight: As ``attention_weights``, filled.
        im2col_step: Unused.
    """
    grads = gradients(
        lambda *inputs: _attend(*inputs, value_spatial_shapes),
        (value, sampling_locations, attention_weights),
        grad_output,
    )
    for target, grad in zip((grad_value, grad_sampling_loc, grad_attn_weight), grads):
        target.copy_(grad)


def _attend(
    value: torch.Tensor,
    sampling_locations: torch.Tensor,
    attention_weights: torch.Tensor,
    value_spatial_shapes: torch.Tensor,
) -> torch.Tensor:
    # mmcv imports this file while it is being imported itself.
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    return multi_scale_deformable_attn_pytorch(
        value, value_spatial_shapes, sampling_locations, attention_weights
    )
