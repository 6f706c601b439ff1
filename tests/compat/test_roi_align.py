"""RoIAlign, average and maximum, against hand-computed cases, torchvision and a slow loop."""

from __future__ import annotations

import math

import pytest
import torch
import torchvision

from mmvitaccel.compat.ops.roi_align import roi_align_backward, roi_align_forward

ROIS = torch.tensor(
    [
        [0.0, 4.0, 6.0, 50.0, 41.0],
        [1.0, 0.0, 0.0, 63.0, 63.0],
        [1.0, -9.0, 20.0, 17.0, 90.0],  # leaves the map on two sides
        [0.0, 30.0, 30.0, 31.0, 31.5],  # smaller than a pixel of the map
    ]
)


def align(
    x: torch.Tensor,
    rois: torch.Tensor,
    size: tuple[int, int],
    scale: float,
    ratio: int,
    mode: str,
    aligned: bool,
) -> torch.Tensor:
    """Call the operator as mmcv does and return what it filled in."""
    return Align.apply(x, rois, size, scale, ratio, mode, aligned)


class Align(torch.autograd.Function):
    """mmcv's calling convention, for where a compiled mmcv hides the stand-in."""

    @staticmethod
    def forward(ctx, x, rois, size, scale, ratio, mode, aligned):
        output = x.new_full((len(rois), x.shape[1], *size), float("nan"))
        where = [x.new_zeros(output.shape if mode == "max" else 0) for _ in range(2)]
        ctx.options = {
            "aligned_height": size[0],
            "aligned_width": size[1],
            "spatial_scale": scale,
            "sampling_ratio": ratio,
            "pool_mode": 0 if mode == "max" else 1,
            "aligned": aligned,
        }
        roi_align_forward(x, rois, output, *where, **ctx.options)
        ctx.save_for_backward(rois, *where)
        ctx.shape = x.shape
        return output

    @staticmethod
    def backward(ctx, grad_output):
        rois, *where = ctx.saved_tensors
        grad_input = grad_output.new_zeros(ctx.shape)
        roi_align_backward(grad_output.contiguous(), rois, *where, grad_input, **ctx.options)
        return grad_input, None, None, None, None, None, None


def slow_sample(x: torch.Tensor, y: float, col: float) -> torch.Tensor:
    """Bilinear sample of a map (C, H, W) at one point; (C,)."""
    _, height, width = x.shape
    if y < -1 or y > height or col < -1 or col > width:
        return x[:, 0, 0] * 0
    y, col = min(max(y, 0), height - 1), min(max(col, 0), width - 1)
    top, left = int(y), int(col)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    fy, fx = y - top, col - left
    upper = x[:, top, left] * (1 - fx) + x[:, top, right] * fx
    lower = x[:, bottom, left] * (1 - fx) + x[:, bottom, right] * fx
    return upper * (1 - fy) + lower * fy


def slow_align(x, rois, size, scale, ratio, mode, aligned):
    """RoIAlign point by point, differentiable by autograd."""
    shift = 0.5 if aligned else 0.0
    regions = []
    for index, *box in rois.tolist():
        x1, y1, x2, y2 = (v * scale - shift for v in box)
        width, height = x2 - x1, y2 - y1
        if not aligned:
            width, height = max(width, 1), max(height, 1)
        m = ratio if ratio > 0 else math.ceil(height / size[0])
        n = ratio if ratio > 0 else math.ceil(width / size[1])
        bins = []
        for i in range(size[0]):
            for j in range(size[1]):
                samples = torch.stack(
                    [
                        slow_sample(
                            x[int(index)],
                            y1 + (i + (a + 0.5) / m) * height / size[0],
                            x1 + (j + (b + 0.5) / n) * width / size[1],
                        )
                        for a in range(m)
                        for b in range(n)
                    ]
                )
                bins.append(samples.mean(0) if mode == "avg" else samples.max(0).values)
        regions.append(torch.stack(bins, dim=1).view(x.shape[1], *size))
    return torch.stack(regions)


def feature_map(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)).to(dtype)


def test_one_bin_by_hand() -> None:
    # Centres of pixels at half-integers: the region's one sample lies midway between four pixels.
    x = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]], requires_grad=True)
    roi = torch.tensor([[0.0, 0.0, 0.0, 2.0, 2.0]])
    output = align(x, roi, (1, 1), 1.0, 1, "avg", True)
    torch.testing.assert_close(output, torch.tensor([[[[3.0]]]]))
    (grad,) = torch.autograd.grad(output, x, torch.tensor([[[[8.0]]]]))
    torch.testing.assert_close(grad, torch.full((1, 1, 2, 2), 2.0))


def test_greatest_by_hand() -> None:
    # Two samples per side fall on the four pixels' centres; the greatest takes all the gradient.
    x = torch.tensor([[[[1.0, 2.0], [6.0, 3.0]]]], requires_grad=True)
    roi = torch.tensor([[0.0, 0.0, 0.0, 2.0, 2.0]])
    output = align(x, roi, (1, 1), 1.0, 2, "max", True)
    torch.testing.assert_close(output, torch.tensor([[[[6.0]]]]))
    (grad,) = torch.autograd.grad(output, x, torch.tensor([[[[5.0]]]]))
    torch.testing.assert_close(grad, torch.tensor([[[[0.0, 0.0], [5.0, 0.0]]]]))


def test_unaligned_region_is_at_least_one_pixel() -> None:
    x = torch.arange(16.0).view(1, 1, 4, 4)
    roi = torch.tensor([[0.0, 1.0, 1.0, 1.0, 1.0]])
    # A pixel wide from (1, 1), sampled at its middle (1.5, 1.5): the mean of 5, 6, 9 and 10.
    for mode in ("avg", "max"):
        output = align(x, roi, (1, 1), 1.0, 1, mode, False)
        torch.testing.assert_close(output, torch.tensor([[[[7.5]]]]))


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 1, 2])
def test_agrees_with_a_loop(mode: str, aligned: bool, ratio: int) -> None:
    x = feature_map().requires_grad_()
    options = ((2, 3), 0.25, ratio, mode, aligned)
    output, expected = align(x, ROIS, *options), slow_align(x, ROIS, *options)
    torch.testing.assert_close(output, expected, rtol=1e-6, atol=1e-6)
    grad_output = torch.randn(output.shape, generator=torch.Generator().manual_seed(1)).double()
    (grad,) = torch.autograd.grad(output, x, grad_output)
    (expected_grad,) = torch.autograd.grad(expected, x, grad_output)
    torch.testing.assert_close(grad, expected_grad, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 2])
def test_average_is_torchvisions(aligned: bool, ratio: int) -> None:
    x = feature_map(torch.float32).requires_grad_()
    output = align(x, ROIS, (7, 7), 0.25, ratio, "avg", aligned)
    expected = torchvision.ops.roi_align(x, ROIS, (7, 7), 0.25, ratio, aligned)
    torch.testing.assert_close(output, expected, rtol=0, atol=0)
    grad_output = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    (grad,) = torch.autograd.grad(output, x, grad_output)
    (expected_grad,) = torch.autograd.grad(expected, x, grad_output)
    torch.testing.assert_close(grad, expected_grad, rtol=0, atol=0)


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16])
def test_narrow_maps_are_pooled_in_float32(mode: str, dtype: torch.dtype) -> None:
    x = feature_map(dtype).requires_grad_()
    options = ((2, 2), 0.25, 2, mode, True)
    output = align(x, ROIS, *options)
    assert output.dtype == dtype
    expected = slow_align(x.detach().float(), ROIS, *options)
    torch.testing.assert_close(output, expected.to(dtype))
    (grad,) = torch.autograd.grad(output.float().sum(), x)
    assert grad.dtype == dtype
    # Each bin hands out its whole gradient of one, but for samples outside the map.
    assert grad.float().sum() == pytest.approx(3 * 4 * 4, rel=0.2)


def test_region_of_no_extent_gives_zero_and_no_gradient() -> None:
    x = feature_map(torch.float32).requires_grad_()
    roi = torch.tensor([[0.0, 8.0, 8.0, 8.0, 30.0]])
    for mode in ("avg", "max"):
        output = align(x, roi, (2, 2), 0.25, 0, mode, True)
        (grad,) = torch.autograd.grad(output.sum(), x)
        assert not output.any()
        assert not grad.any()


def test_no_regions_give_no_output() -> None:
    x = feature_map(torch.float32).requires_grad_()
    for mode in ("avg", "max"):
        output = align(x, torch.empty(0, 5), (2, 2), 0.25, 0, mode, True)
        assert output.shape == (0, 3, 2, 2)
        (grad,) = torch.autograd.grad(output.sum(), x)
        assert not grad.any()


@pytest.mark.parametrize("mode", ["avg", "max"])
def test_through_mmcv_and_under_autocast(mode: str) -> None:
    ops = pytest.importorskip("mmcv.ops")
    x = feature_map(torch.float32).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = ops.roi_align(x, ROIS, (2, 3), 0.25, 2, mode, True)
    torch.testing.assert_close(output, slow_align(x, ROIS, (2, 3), 0.25, 2, mode, True))
    (grad,) = torch.autograd.grad(output.sum(), x)
    expected = slow_align(x, ROIS, (2, 3), 0.25, 2, mode, True)
    (expected_grad,) = torch.autograd.grad(expected.sum(), x)
    torch.testing.assert_close(grad, expected_grad, rtol=1e-4, atol=1e-4)
