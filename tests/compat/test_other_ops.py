"""Deformable convolution, focal loss and deformable attention against independent references."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mmvitaccel.compat.ops import deform_conv as dcn
from mmvitaccel.compat.ops.focal_loss import (
    sigmoid_focal_loss_backward,
    sigmoid_focal_loss_forward,
)
from mmvitaccel.compat.ops.ms_deform_attn import ms_deform_attn_backward, ms_deform_attn_forward


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sample(plane: torch.Tensor, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Bilinear sample of (C, H, W) at one point, zero outside; differentiable in all three."""
    total = plane.new_zeros(plane.shape[0])
    for row in (y.floor(), y.floor() + 1):
        for column in (x.floor(), x.floor() + 1):
            if 0 <= row < plane.shape[1] and 0 <= column < plane.shape[2]:
                weight = (1 - (y - row).abs()) * (1 - (x - column).abs())
                total = total + plane[:, int(row), int(column)] * weight
    return total


def slow_deform_conv(x, offset, weight, mask, bias, stride, padding, dilation, groups, parts):
    """Deformable convolution position by position; pairs are (vertical, horizontal)."""
    batch, channels = x.shape[:2]
    out_channels, _, kh, kw = weight.shape
    height, width = offset.shape[2:]
    images = []
    for b in range(batch):
        rows = []
        for i in range(height):
            for j in range(width):
                columns = []
                for part, plane in enumerate(x[b].chunk(parts)):
                    taps = []
                    for u in range(kh):
                        for v in range(kw):
                            at = part * kh * kw + u * kw + v
                            y = i * stride[0] - padding[0] + u * dilation[0]
                            c = j * stride[1] - padding[1] + v * dilation[1]
                            value = sample(
                                plane, y + offset[b, 2 * at, i, j], c + offset[b, 2 * at + 1, i, j]
                            )
                            taps.append(value * (1 if mask is None else mask[b, at, i, j]))
                    columns.append(torch.stack(taps, dim=1))  # (channels / parts, taps)
                column = torch.cat(columns).view(groups, channels // groups, kh * kw)
                kernel = weight.view(groups, out_channels // groups, channels // groups, kh * kw)
                rows.append(torch.einsum("gock,gck->go", kernel, column).flatten())
        images.append(torch.stack(rows, dim=1).view(out_channels, height, width))
    output = torch.stack(images)
    return output if bias is None else output + bias[:, None, None]


GEOMETRY = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)}
SHAPES = {"groups": 2, "parts": 2}


def operands() -> list[torch.Tensor]:
    x, weight = randn(2, 4, 5, 4), randn(6, 2, 3, 2, seed=1)
    height, width = (5 + 2 - 3) // 2 + 1, (4 + 4 - 3) // 1 + 1
    offset = randn(2, 2 * 2 * 6, height, width, seed=2)
    mask = randn(2, 2 * 6, height, width, seed=3).sigmoid()
    return [x, offset, weight, mask, randn(6, seed=4)]


def test_deform_conv_agrees_with_a_loop() -> None:
    x, offset, weight, _, _ = (t.requires_grad_() for t in operands())
    expected = slow_deform_conv(x, offset, weight, None, None, **GEOMETRY, **SHAPES)
    grad_output = randn(*expected.shape, seed=5)
    expected_grads = torch.autograd.grad(expected, (x, offset, weight), grad_output)

    x, offset, weight = x.detach(), offset.detach(), weight.detach()
    names = {"dH": 2, "dW": 1, "padH": 1, "padW": 2, "dilationH": 1, "dilationW": 2}
    names |= {"kH": 3, "kW": 2, "group": 2, "deformable_group": 2, "im2col_step": 2}
    none = x.new_empty(0)
    output = torch.empty_like(expected)
    dcn.deform_conv_forward(x, weight, offset, output, none, none, **names)
    torch.testing.assert_close(output, expected)

    grad_x, grad_offset, grad_weight = (torch.zeros_like(t) for t in (x, offset, weight))
    dcn.deform_conv_backward_input(
        x, offset, grad_output, grad_x, grad_offset, weight, none, **names
    )
    dcn.deform_conv_backward_parameters(
        x, offset, grad_output, grad_weight, none, none, scale=1, **names
    )
    for mine, theirs in zip((grad_x, grad_offset, grad_weight), expected_grads):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("with_bias", [True, False])
def test_modulated_deform_conv_agrees_with_a_loop(with_bias: bool) -> None:
    leaves = [t.requires_grad_() for t in operands()]
    x, offset, weight, mask, bias = leaves
    expected = slow_deform_conv(
        x, offset, weight, mask, bias if with_bias else None, **GEOMETRY, **SHAPES
    )
    grad_output = randn(*expected.shape, seed=5)
    expected_grads = torch.autograd.grad(
        expected, leaves if with_bias else leaves[:-1], grad_output
    )

    x, offset, weight, mask, bias = (t.detach() for t in leaves)
    bias = bias if with_bias else bias.new_empty(0)
    names = {"stride_h": 2, "stride_w": 1, "pad_h": 1, "pad_w": 2}
    names |= {"dilation_h": 1, "dilation_w": 2, "kernel_h": 3, "kernel_w": 2}
    names |= {"group": 2, "deformable_group": 2, "with_bias": with_bias}
    none = x.new_empty(0)
    output = torch.empty_like(expected)
    dcn.modulated_deform_conv_forward(x, weight, bias, none, offset, mask, output, none, **names)
    torch.testing.assert_close(output, expected)

    grads = {k: torch.zeros_like(t) for k, t in zip("xwbom", (x, weight, bias, offset, mask))}
    dcn.modulated_deform_conv_backward(
        x, weight, bias, none, offset, mask, none, *grads.values(), grad_output, **names
    )
    for mine, theirs in zip((grads[k] for k in "xowmb"), expected_grads):
        torch.testing.assert_close(mine, theirs)


def test_mmcv_deform_layers_train_under_autocast() -> None:
    ops = pytest.importorskip("mmcv.ops")
    torch.manual_seed(0)
    if not _is_stand_in():
        pytest.skip("the compiled mmcv that is installed has operators of its own")
    for layer in (ops.DeformConv2dPack(4, 4, 3, padding=1), ops.ModulatedDeformConv2dPack(4, 4, 3)):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = layer(randn(2, 4, 6, 6).float())
        output.float().sum().backward()
        assert all(p.grad.isfinite().all() for p in layer.parameters())
        assert any(p.grad.abs().sum() > 0 for p in layer.parameters())


def _is_stand_in() -> bool:
    import mmcv._ext

    return "stand_ins" in mmcv._ext.__file__


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_focal_loss_is_its_definition(gamma: float, weighted: bool) -> None:
    logits = (3 * randn(6, 4)).requires_grad_()
    target = torch.tensor([0, 3, 2, 4, 1, 0])  # 4 is the background
    weight = torch.tensor([1.0, 2.0, 0.5, 3.0, 0.25]).double() if weighted else logits.new_empty(0)
    one_hot = F.one_hot(target, 5)[:, :4].double()
    p_t = torch.where(one_hot > 0, logits.sigmoid(), 1 - logits.sigmoid())
    alpha_t = torch.where(one_hot > 0, 0.3, 0.7)
    expected = -alpha_t * (1 - p_t) ** gamma * p_t.log()
    if weighted:
        expected = expected * weight[target][:, None]
    (expected_grad,) = torch.autograd.grad(expected.sum(), logits)

    output, grad = (torch.full_like(logits, float("nan")) for _ in range(2))
    sigmoid_focal_loss_forward(logits.detach(), target, weight, output, gamma=gamma, alpha=0.3)
    sigmoid_focal_loss_backward(logits.detach(), target, weight, grad, gamma=gamma, alpha=0.3)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(grad, expected_grad)


def test_focal_loss_stays_finite_in_half() -> None:
    logits = torch.tensor([[60.0, -60.0]], dtype=torch.half)
    none = logits.new_empty(0)
    for function in (sigmoid_focal_loss_forward, sigmoid_focal_loss_backward):
        result = torch.full_like(logits, float("nan"))
        function(logits, torch.tensor([1]), none, result, gamma=2.0, alpha=0.25)
        assert result.isfinite().all()
    # Both logits are wrong by 60: 0.75 * 60 and 0.25 * 60.
    sigmoid_focal_loss_forward(logits, torch.tensor([1]), none, result, gamma=2.0, alpha=0.25)
    torch.testing.assert_close(result, torch.tensor([[45.0, 15.0]], dtype=torch.half))


def test_deformable_attention_agrees_with_a_loop() -> None:
    shapes = torch.tensor([[3, 4], [2, 2]])
    value = randn(1, 16, 2, 3).requires_grad_()
    locations = (randn(1, 2, 2, 2, 2, 2, seed=1) * 0.2 + 0.5).requires_grad_()
    attention = randn(1, 2, 2, 2, 2, seed=2).requires_grad_()
    rows = []
    for query in range(2):
        for head in range(2):
            total = value.new_zeros(3)
            for level, start in ((0, 0), (1, 12)):
                height, width = shapes[level].tolist()
                plane = value[0, start : start + height * width, head].T.view(3, height, width)
                for point in range(2):
                    at = locations[0, query, head, level, point]
                    picked = sample(plane, at[1] * height - 0.5, at[0] * width - 0.5)
                    total = total + picked * attention[0, query, head, level, point]
            rows.append(total)
    expected = torch.cat(rows).view(1, 2, 6)
    grad_output = randn(1, 2, 6, seed=3)
    leaves = (value, locations, attention)
    expected_grads = torch.autograd.grad(expected, leaves, grad_output)

    value, locations, attention = (t.detach() for t in leaves)
    call = (value, shapes, torch.tensor([0, 12]), locations, attention)
    torch.testing.assert_close(ms_deform_attn_forward(*call, im2col_step=64), expected)
    grads = [torch.zeros_like(t) for t in leaves]
    ms_deform_attn_backward(*call, grad_output, *grads, im2col_step=64)
    for mine, theirs in zip(grads, expected_grads):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("wild", [float("nan"), float("inf"), -float("inf")])
def test_offsets_of_a_diverged_training_sample_nothing(wild: float) -> None:
    """torchvision alone reads memory outside of the map there, which ends the process."""
    from mmcv.ops import deform_conv2d, modulated_deform_conv2d

    x, offset, weight = torch.rand(1, 2, 6, 6), torch.zeros(1, 18, 6, 6), torch.rand(3, 2, 3, 3)
    offset[:, :, 2, 3] = wild
    offset.requires_grad_()
    plain = deform_conv2d(x, offset, weight, 1, 1)
    other = modulated_deform_conv2d(x, offset, torch.ones(1, 9, 6, 6), weight, None, 1, 1)
    expected = F.conv2d(x, weight, padding=1)
    expected[:, :, 2, 3] = 0
    for found in (plain, other):
        torch.testing.assert_close(found, expected)
        (gradient,) = torch.autograd.grad(found.sum(), offset)
        assert not gradient[:, :, 2, 3].any()
        assert gradient.isfinite().all()
        assert gradient.any()
