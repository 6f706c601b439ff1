"""RoIAlign (He et al., arXiv 1703.06870) over channels-last maps, as a torch operator.

The stored maps of a pyramid have this layout (``roi_align.cpp``); torchvision's operator would copy
each map.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from mmvitaccel.core.kernels.operators import can_run, cpu_operator, kernels, pointers, whole
from mmvitaccel.core.macs.formulas import register_macs_formula

# Channels are processed in whole vectors; this is the width of the widest.
_VECTOR = 16


class _Align(ctypes.Structure):
    """``Align`` of ``roi_align.cpp``."""

    _fields_ = [
        *whole("images", "height", "width", "channels", "of_image", "of_row", "of_pixel"),
        *whole("num_boxes", "down", "across", "samples", "aligned"),
        ("scale", ctypes.c_double),
        *pointers("maps", "boxes", "out"),
    ]


def can_align(x: Tensor, rois: Tensor) -> bool:
    """Whether the kernel supports these maps (B, C, H, W) and boxes (K, 5), without gradients."""
    if torch.is_grad_enabled() and (x.requires_grad or rois.requires_grad):
        return False
    return (
        x.dtype == rois.dtype == torch.float32
        and x.shape[1] % _VECTOR == 0
        and x.stride(1) == 1
        and can_run(x, rois)
    )


@cpu_operator(
    "roi_align(Tensor x, Tensor rois, int height, int width, float scale, int samples, "
    "bool aligned) -> Tensor"
)
def roi_align(
    x: Tensor,
    rois: Tensor,
    height: int,
    width: int,
    scale: float,
    samples: int,
    aligned: bool,
) -> Tensor:
    """Average regions of maps into bins.

    Args:
        x: (B, C, H, W) float32 on a CPU in channels-last format, C a multiple of 16.
        rois: (K, 5) float32: index in the batch, then x1, y1, x2, y2 in pixels of the image.
        height: Number h of bins in the vertical direction.
        width: Number w of bins in the horizontal direction.
        scale: Pixels of the map per pixel of the image.
        samples: Samples per bin and axis; 0 for one per pixel of the map.
        aligned: Whether pixel centres are at half-integers, which shifts regions by -0.5.

    Returns:
        (K, C, h, w).

    Raises:
        ValueError: The memory format or the number of channels is wrong, or a box has an image
            index outside the batch.
    """
    batch, channels, rows, columns = x.shape
    if x.stride(1) != 1 or channels % _VECTOR:
        raise ValueError(
            f"roi_align: maps {tuple(x.shape)} with strides {x.stride()}; the format must be "
            f"channels-last and the channels a multiple of {_VECTOR}."
        )
    images = rois[:, 0]
    if len(rois) and not bool(((images >= 0) & (images < batch)).all()):
        raise ValueError(
            f"roi_align: boxes have image indices from {images.min():g} to {images.max():g}, but "
            f"the batch has {batch} images"
        )
    rois = rois.contiguous()
    out = torch.empty(len(rois), channels, height, width)
    work = _Align(
        batch, rows, columns, channels, x.stride(0), x.stride(2), x.stride(3),
        len(rois), height, width, samples, aligned, scale,
        x.data_ptr(), rois.data_ptr(), out.data_ptr(),
    )  # fmt: skip
    kernels().roi_align(ctypes.byref(work), torch.get_num_threads())
    return out


@register_macs_formula(roi_align)
def _macs(*_: Any, **__: Any) -> int:
    """Zero: sampling is not counted as multiply-adds."""
    return 0
