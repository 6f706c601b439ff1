"""mmcv's operators on maps that do not lie as their compiled code reads them."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

from mmvitaccel.compat.map_layout import lay_out_maps

X = torch.randn(1, 8, 12, 10, generator=torch.Generator().manual_seed(0))
BOXES = torch.tensor([[0.0, 3.0, 4.0, 20.0, 30.0], [0.0, 1.0, 2.0, 39.0, 44.0]])


def deformed(x):
    from mmcv.ops import deform_conv2d

    offset = torch.linspace(-1, 1, 18 * 120).view(1, 18, 12, 10)
    return deform_conv2d(x, offset, torch.ones(4, 8, 3, 3), 1, 1)


def modulated(x):
    from mmcv.ops import modulated_deform_conv2d

    offset = torch.linspace(-1, 1, 18 * 120).view(1, 18, 12, 10)
    weight, mask = torch.ones(4, 8, 3, 3), torch.ones(1, 9, 12, 10)
    return modulated_deform_conv2d(x, offset, mask, weight, None, 1, 1)


def averaged(x):
    from mmcv.ops import RoIAlign

    return RoIAlign(3, 0.25, 0)(x, BOXES)


def greatest(x):
    from mmcv.ops import RoIAlign

    return RoIAlign(3, 0.25, 2, pool_mode="max")(x, BOXES)


@pytest.mark.parametrize("operator", [averaged, greatest, deformed, modulated])
def test_an_operator_gives_the_same_for_every_layout(operator):
    last = X.contiguous(memory_format=torch.channels_last)
    part = torch.nn.functional.pad(X, (1, 1, 1, 1))[..., 1:-1, 1:-1]
    for x in (last, part):
        torch.testing.assert_close(operator(x), operator(X), rtol=1e-5, atol=1e-6)


def test_what_an_operator_is_given_lies_as_it_reads_it():
    """Whatever mmcv is installed: its operators see no other layout."""
    seen = []

    class Operator(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, scale, boxes=None):
            seen.append((x.is_contiguous(), boxes.is_contiguous()))
            ctx.save_for_backward(x)
            return x * scale

        @staticmethod
        def backward(ctx, grad):
            return grad * 2, None, None

    module = ModuleType("mmcv.ops.some")
    Operator.__module__ = module.__name__
    module.Operator, module.other = Operator, torch.nn.Linear
    lay_out_maps(module)
    x = X.contiguous(memory_format=torch.channels_last).requires_grad_()
    Operator.apply(x, 2, BOXES.t()).sum().backward()
    assert seen == [(True, True)]
    assert torch.equal(x.grad, torch.full_like(X, 2.0))
