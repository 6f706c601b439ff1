"""The attention's form for deployment against the plain one."""

from __future__ import annotations

import pytest
import torch

from mmvitaccel.models.efficientvit.attention import WindowAttention
from mmvitaccel.models.efficientvit.backbone import EfficientViT
from mmvitaccel.models.efficientvit.conv_norm import ConvNorm
from mmvitaccel.models.efficientvit.tokens import TokenAttention, switch_to_tokens

NARROW = dict(embed_dims=(16, 24, 32), depths=(1, 2, 1), num_heads=(2, 3, 2), kernels=(5, 3, 3))


def folded(randomise, heads, kernels):
    layer = randomise(WindowAttention(24, heads, 4, kernels)).eval()
    for module in layer.modules():
        if isinstance(module, ConvNorm):
            module.switch_to_deploy()
    return layer.double().requires_grad_(False)


@pytest.mark.parametrize("size", [(4, 4), (1, 1), (2, 3), (4, 1), (8, 4), (5, 7), (9, 4)])
@pytest.mark.parametrize("heads, kernels", [(1, (5,)), (3, (5, 3, 3, 3))])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_it_computes_the_same(randomise, size, heads, kernels, layout):
    layer = folded(randomise, heads, kernels)
    x = torch.randn(2, 24, *size, dtype=torch.float64).contiguous(memory_format=layout)
    torch.testing.assert_close(TokenAttention(layer)(x), layer(x))


def test_whole_backbone(randomise):
    model = randomise(EfficientViT(arch=NARROW)).eval().requires_grad_(False)
    model.switch_to_deploy()
    x = torch.randn(1, 3, 144, 240)
    expected = model(x)
    assert switch_to_tokens(model) is model
    assert sum(isinstance(m, TokenAttention) for m in model.modules()) == 4
    for out, other in zip(model(x), expected):
        torch.testing.assert_close(out, other, rtol=1e-4, atol=1e-4 * other.abs().max().item())


def test_it_follows_a_cast():
    model = EfficientViT(arch=NARROW, deploy=True).eval()
    switch_to_tokens(model).double()
    assert all(out.dtype == torch.float64 for out in model(torch.randn(1, 3, 64, 64).double()))


def test_what_is_not_folded_is_refused():
    with pytest.raises(ValueError, match=r"BatchNorm folded; call switch_to_deploy\(\) first"):
        switch_to_tokens(EfficientViT(arch=NARROW))
    with pytest.raises(ValueError, match="Conv2d has no EfficientViT attention"):
        switch_to_tokens(torch.nn.Conv2d(1, 1, 1))


def test_what_would_be_dropped_is_refused():
    model = EfficientViT(arch=NARROW, deploy=True).eval()
    path, layer = next((n, m) for n, m in model.named_modules() if isinstance(m, WindowAttention))
    hook = layer.attn.proj.register_forward_hook(lambda *_: None)
    with pytest.raises(
        ValueError, match=rf"{path}\.attn\.proj' has a hook .* would have no effect"
    ):
        switch_to_tokens(model)
    hook.remove()
    layer.register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match=rf"'{path}' has a hook"):
        switch_to_tokens(model)
