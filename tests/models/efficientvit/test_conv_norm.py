"""The folding of one convolution and its norm."""

from __future__ import annotations

import pytest
import torch

from mmvitaccel.models.efficientvit.conv_norm import ConvNorm


def test_folded_convolution_has_the_weights_of_the_formula(randomise):
    layer = randomise(ConvNorm(4, 6, 3, stride=2, groups=2)).eval()
    x = torch.randn(2, 4, 9, 8)
    with torch.no_grad():
        expected = layer(x)
        deviation = (layer.bn.running_var + layer.bn.eps).sqrt()
        weight = layer.c.weight * (layer.bn.weight / deviation).view(-1, 1, 1, 1)
        bias = layer.bn.bias - layer.bn.running_mean * layer.bn.weight / deviation
        layer.switch_to_deploy()
        torch.testing.assert_close(layer.c.weight, weight)
        torch.testing.assert_close(layer.c.bias, bias)
        torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)
    assert set(layer.state_dict()) == {"c.weight", "c.bias"}


class Lora(torch.nn.Conv2d):
    """A convolution with something beside its weight, as LoRA has."""

    def forward(self, x):
        return super().forward(x) + 1


class Doubled(torch.nn.Module):
    """A parametrization."""

    def forward(self, weight):
        return 2 * weight


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: setattr(m.c, "__class__", Lora), r"its convolution is a \S*\.Lora, which would"),
        (
            lambda m: torch.nn.utils.parametrize.register_parametrization(m.c, "weight", Doubled()),
            "the weight of its convolution is recomputed",
        ),
        (
            lambda m: m.c.register_forward_pre_hook(lambda *_: None),
            "the weight of its convolution is recomputed",
        ),
        (lambda m: m.bn.register_forward_hook(lambda *_: None), "its norm has a hook"),
    ],
)
def test_what_folding_would_drop_is_refused(change, message):
    layer = ConvNorm(4, 6).eval()
    change(layer)
    before = layer(x := torch.randn(1, 4, 5, 5))
    with pytest.raises(ValueError, match=rf"ConvNorm with 6 channels cannot be folded: {message}"):
        layer.switch_to_deploy()
    assert torch.equal(layer(x), before)
    assert not layer.is_deployed
