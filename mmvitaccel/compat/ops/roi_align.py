"""RoIAlign with mmcv's arguments: average by torchvision, maximum in torch.

RoIAlign is from Mask R-CNN (He et al., ICCV 2017): each of the h x w bins of a region is sampled
bilinearly at a grid of points, and the samples of a bin are averaged (or the greatest is taken).
"""

from __future__ import annotations

import math

import torch
import torchvision

from mmvitaccel.compat.ops.gradients import gradients
from mmvitaccel.compat.ops.precision import widen

MAX = 0


def roi_align_forward(
    input: torch.Tensor,
    rois: torch.Tensor,
    output: torch.Tensor,
    argmax_y: torch.Tensor,
    argmax_x: torch.Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Fill ``output`` (K, C, h, w) and, for the maximum, where in the map it was found.

    Args:
        input: (B, C, H, W) feature map.
        rois: (K, 5) as image index, x1, y1, x2, y2 in pixels of the image.
        output: (K, C, h, w), filled.
        argmax_y: (K, C, h, w) for the maximum, filled with feature-map rows; else empty.
        argmax_x: As ``argmax_y``, columns.
        aligned_height: h.
        aligned_width: w.
        spatial_scale: Feature-map pixels per image pixel.
        sampling_ratio: Samples per bin and direction; 0 takes one per feature-map pixel.
        pool_mode: 0 maximum, 1 average.
        aligned: Whether pixel centres lie at half-integers (shifts the region by -0.5).
    """
    size = (aligned_height, aligned_width)
    if pool_mode == MAX:
        x = widen(input)
        for k, roi in enumerate(rois.to(x.dtype)):
            ys, xs = (
                _sample_points(roi[i], roi[i + 2], bins, spatial_scale, sampling_ratio, aligned)
                for i, bins in ((2, aligned_height), (1, aligned_width))
            )
            output[k], argmax_y[k], argmax_x[k] = _greatest(x[int(roi[0])], ys, xs)
        return
    output.copy_(_average(widen(input), rois, size, spatial_scale, sampling_ratio, aligned))


def roi_align_backward(
    grad_output: torch.Tensor,
    rois: torch.Tensor,
    argmax_y: torch.Tensor,
    argmax_x: torch.Tensor,
    grad_input: torch.Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Fill ``grad_input`` (B, C, H, W); mmcv passes it as zeros.

    Args:
        grad_output: (K, C, h, w).
        rois: (K, 5).
        argmax_y: (K, C, h, w) as the forward filled it, or empty.
        argmax_x: As ``argmax_y``.
        grad_input: (B, C, H, W), filled.
        aligned_height: h.
        aligned_width: w.
        spatial_scale: Feature-map pixels per image pixel.
        sampling_ratio: Samples per bin and direction.
        pool_mode: 0 maximum, 1 average.
        aligned: As in the forward.
    """
    if pool_mode == MAX:
        grad_input.copy_(
            _spread_to_argmax(widen(grad_output), rois, argmax_y, argmax_x, grad_input.shape)
        )
        return
    size = (aligned_height, aligned_width)
    # The average is linear in the map: where its gradient is taken does not matter.
    (grad,) = gradients(
        lambda x: _average(x, rois, size, spatial_scale, sampling_ratio, aligned),
        (grad_input,),
        grad_output,
    )
    grad_input.copy_(grad)


def _average(
    x: torch.Tensor,
    rois: torch.Tensor,
    size: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> torch.Tensor:
    return torchvision.ops.roi_align(
        x, rois.to(x.dtype), size, spatial_scale, sampling_ratio, aligned
    )


def _sample_points(
    start: torch.Tensor,
    end: torch.Tensor,
    bins: int,
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> torch.Tensor:
    """Coordinates of one region's samples along one side, (bins, samples per bin)."""
    start = start * spatial_scale - (0.5 if aligned else 0.0)
    length = end * spatial_scale - (0.5 if aligned else 0.0) - start
    if not aligned:
        length = length.clamp(min=1)
    samples = sampling_ratio if sampling_ratio > 0 else math.ceil(float(length / bins))
    kind = {"device": start.device, "dtype": start.dtype}
    within = (torch.arange(samples, **kind) + 0.5) / max(samples, 1)
    # (bins, 1) + (samples,) -> (bins, samples), in bins; times a bin's length, in pixels
    return start + (torch.arange(bins, **kind)[:, None] + within) * (length / bins)


def _greatest(
    x: torch.Tensor, ys: torch.Tensor, xs: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Greatest sample of each bin of a map (C, H, W) and its row and column, each (C, h, w)."""
    (h, m), (w, n) = ys.shape, xs.shape
    if m == 0 or n == 0:
        # A region of no extent has no samples; zero, as the average has it, and -1 for
        # nowhere. (The compiled operator returns its initial value of -10000 there.)
        nothing = x.new_zeros(x.shape[0], h, w)
        return nothing, nothing - 1, nothing - 1
    y_low, y_high, y_part, y_inside = _neighbours(ys.flatten(), x.shape[1])
    x_low, x_high, x_part, x_inside = _neighbours(xs.flatten(), x.shape[2])
    # (C, H, W) -> (C, h*m, W) -> (C, h*m, w*n): bilinear sampling is one lerp per direction
    rows = torch.lerp(x[:, y_low], x[:, y_high], y_part[:, None])
    samples = torch.lerp(rows[:, :, x_low], rows[:, :, x_high], x_part)
    samples = samples * (y_inside[:, None] & x_inside)
    # (C, h, m, w, n) -> (C, h, w, m*n)
    samples = samples.view(-1, h, m, w, n).transpose(2, 3).flatten(3)
    best, index = samples.max(dim=3)
    row = torch.arange(h, device=x.device)[:, None]
    column = torch.arange(w, device=x.device)
    return best, ys[row, index // n], xs[column, index % n]


def _neighbours(
    at: torch.Tensor, length: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pixels before and after each coordinate, the fraction between, and if it counts at all.

    A coordinate up to one pixel outside is moved to the border; further out the map is zero.
    """
    inside = (at >= -1) & (at <= length)
    at = at.clamp(0, length - 1)
    low = at.floor().long()
    return low, (low + 1).clamp(max=length - 1), at - low, inside


def _spread_to_argmax(
    grad_output: torch.Tensor,
    rois: torch.Tensor,
    argmax_y: torch.Tensor,
    argmax_x: torch.Tensor,
    shape: torch.Size,
) -> torch.Tensor:
    """Give each gradient (K, C, h, w) to the four pixels around its sample; (B, C, H, W)."""
    batch, channels, height, width = shape
    y_low, y_high, y_part, y_inside = _neighbours(widen(argmax_y), height)
    x_low, x_high, x_part, x_inside = _neighbours(widen(argmax_x), width)
    found = argmax_y != -1
    grad = grad_output * (y_inside & x_inside & found)
    channel = torch.arange(channels, device=rois.device)[:, None, None]
    plane = (rois[:, 0].long()[:, None, None, None] * channels + channel) * height
    total = grad.new_zeros(batch * channels * height * width)
    for y, y_weight in ((y_low, 1 - y_part), (y_high, y_part)):
        for x, x_weight in ((x_low, 1 - x_part), (x_high, x_part)):
            pixel = (plane + y) * width + x
            total.index_add_(0, pixel.flatten(), (grad * y_weight * x_weight).flatten())
    return total.view(shape)
