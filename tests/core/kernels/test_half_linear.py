"""Linear layers in half precision by way of single precision."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmvitaccel.core.kernels import half_linear as module
from mmvitaccel.core.kernels.half_linear import half_linear
from mmvitaccel.core.kernels.library import instruction_sets
from mmvitaccel.core.kernels.library.instruction_sets import multiplies_half_faster


@pytest.fixture
def slow_half(monkeypatch):
    """As if this processor multiplied single precision faster."""
    monkeypatch.setattr(module, "_single_is_faster", lambda: True)
    torch.manual_seed(0)


def half_ulp(expected: torch.Tensor) -> torch.Tensor:
    return expected.abs() * 2**-8 + 1e-6


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("outs", [1, 768, 769, 2000])
def test_is_the_layer_rounded_once(slow_half, outs, bias):
    layer = nn.Linear(70, outs, bias=bias).bfloat16()
    x = torch.randn(2, 130, 70).bfloat16()
    with torch.no_grad():
        out = half_linear(layer, x)
        expected = layer.double()(x.double())
    assert out.dtype == torch.bfloat16
    assert ((out.double() - expected).abs() <= half_ulp(expected)).all()


def test_within_autocast_weights_are_not_rounded(slow_half):
    layer = nn.Linear(70, 40)
    x = torch.randn(1, 3, 70)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        out = half_linear(layer, x)
        assert out.dtype == layer(x).dtype == torch.bfloat16
    expected = layer.double()(x.double())
    assert ((out.double() - expected).abs() <= half_ulp(expected)).all()


def test_follows_every_change_of_the_weights(slow_half):
    layer, x = nn.Linear(64, 64, bias=False).bfloat16(), torch.randn(200, 64).bfloat16()
    with torch.no_grad():
        before = half_linear(layer, x)
        layer.weight.data.mul_(2.0)  # which leaves no trace in place and version
        assert torch.equal(half_linear(layer, x), 2 * before)


def test_leaves_to_the_layer_what_is_no_gain(slow_half, monkeypatch):
    layer, x = nn.Linear(64, 64).bfloat16(), torch.randn(200, 64).bfloat16()
    assert half_linear(layer, x) is None  # gradients
    with torch.no_grad():
        assert half_linear(layer, x) is not None
        assert half_linear(layer, x[:20]) is None
        assert half_linear(layer.float(), x.float()) is None
        # Autocast on a CPU takes no other dtype in torch 2.1
        monkeypatch.setattr(module, "autocast_dtype", lambda device: torch.float16)
        assert half_linear(layer, x.float()) is None


def test_leaves_it_to_a_processor_that_multiplies_half_faster(monkeypatch):
    monkeypatch.setattr(module, "_single_is_faster", lambda: False)
    with torch.no_grad():
        assert half_linear(nn.Linear(64, 64).bfloat16(), torch.randn(200, 64).bfloat16()) is None


@pytest.mark.parametrize(
    ("machine", "text", "faster"),
    [
        ("x86_64", "vendor_id\t: GenuineIntel\nflags\t\t: fpu avx512f avx512_bf16\n", False),
        ("x86_64", "vendor_id\t: GenuineIntel\nflags\t\t: fpu avx512_bf16 amx_bf16\n", True),
        ("x86_64", "vendor_id\t: AuthenticAMD\nflags\t\t: fpu avx512f avx512_bf16\n", True),
        ("x86_64", "vendor_id\t: AuthenticAMD\nflags\t\t: fpu avx2\n", False),
        ("x86_64", "", False),
        ("aarch64", "Features\t: fp asimd bf16\n", True),
        ("aarch64", "Features\t: fp asimd\n", False),
    ],
)
def test_which_processors_do(monkeypatch, tmp_path, machine, text, faster):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(text)
    monkeypatch.setattr(instruction_sets, "CPUINFO", cpuinfo)
    monkeypatch.setattr(instruction_sets.platform, "machine", lambda: machine)
    assert multiplies_half_faster() is faster
