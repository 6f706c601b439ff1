"""Profile of a model: matrix products and convolutions against memory-bound operators.

EfficientViT's analysis (arXiv 2305.07027, section 2.1, figure 2): reshaping, element-wise functions
and normalisation move much memory for few computations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

GROUPS: Mapping[str, str] = {
    "products": (
        "mm addmm bmm baddbmm linear mkldnn_linear mkldnn_convolution _slow_conv2d_forward "
        "slow_conv_transpose2d convolution_overrideable _conv_depthwise2d cudnn_convolution "
        "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention "
        "_scaled_dot_product_efficient_attention _efficient_attention_forward "
        "_flash_attention_forward"
    ),
    "reshapes": (
        "copy_ clone cat index gather constant_pad_nd fill_ zero_ im2col roll stack _to_copy "
        "index_select"
    ),
    "elementwise": (
        "add add_ mul mul_ sub div div_ relu relu_ clamp_min clamp_min_ gelu sigmoid hardswish "
        "silu tanh exp _softmax mean sum max_pool2d_with_indices pow rsqrt addcmul where"
    ),
    "normalisation": (
        "native_batch_norm native_layer_norm native_group_norm cudnn_batch_norm "
        "_native_batch_norm_legit _native_batch_norm_legit_no_training"
    ),
}
"""Operators of ``aten`` by what bounds them; all others, views and dispatch, are ``other``."""

MEMORY_BOUND = ("reshapes", "elementwise", "normalisation")


def profile_shares(model: nn.Module, x: Tensor, rounds: int = 5) -> tuple[dict[str, float], float]:
    """Share of each group of operators in the time of a forward pass.

    Args:
        model: In training or evaluation mode.
        x: Its input.
        rounds: Number of measured passes, after two warm-up passes.

    Returns:
        Shares by group including ``other``, which sum to 1, and the seconds of one pass under the
        profiler. On CUDA, device time is measured, without dispatch.
    """
    activities = [ProfilerActivity.CPU]
    if x.is_cuda:
        activities.append(ProfilerActivity.CUDA)
    with torch.no_grad():
        for _ in range(2):
            model(x)
        with profile(activities=activities) as profiler:
            for _ in range(rounds):
                model(x)
    times = Counter()
    for event in profiler.key_averages():
        times[event.key] += _device_time(event) if x.is_cuda else event.self_cpu_time_total
    return group_times(times), sum(times.values()) / rounds * 1e-6


def group_times(times: Mapping[str, float]) -> dict[str, float]:
    """Shares of the groups in the times of operators (``aten::add`` etc.)."""
    group_of = {f"aten::{name}": group for group, names in GROUPS.items() for name in names.split()}
    total = sum(times.values())
    shares = dict.fromkeys([*GROUPS, "other"], 0.0)
    for name, time in times.items():
        shares[group_of.get(name, "other")] += time / total
    return shares


def _device_time(event: object) -> float:
    # torch 2.1 calls it after CUDA
    time = getattr(event, "self_device_time_total", None)
    return event.self_cuda_time_total if time is None else time
