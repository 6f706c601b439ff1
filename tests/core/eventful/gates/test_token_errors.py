"""Errors of gates against their definition, by the kernels and by torch's operators."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmvitaccel.core.eventful.gates import token_errors as errors
from mmvitaccel.core.eventful.gates.output import Output
from mmvitaccel.core.kernels import operators


@pytest.fixture(params=["kernel", "torch"])
def way(request, monkeypatch):
    """With the kernels, which then have to be asked, and without."""
    if request.param == "torch":
        monkeypatch.setattr(operators, "kernels", lambda: None)
        yield
        return
    request.getfixturevalue("kernel")
    asked = []
    for name in ("normed_errors", "output_errors"):
        run = getattr(errors, name)
        monkeypatch.setattr(errors, name, lambda *args, run=run: (asked.append(run), run(*args))[1])
    yield
    assert asked


def norms(channels):
    """By name, with weights that matter."""
    torch.manual_seed(1)
    made = {
        "none": None,
        "affine": nn.LayerNorm(channels, eps=1e-3),
        "plain": nn.LayerNorm(channels, elementwise_affine=False),
    }
    nn.init.normal_(made["affine"].weight)
    nn.init.normal_(made["affine"].bias)
    return made


@pytest.mark.parametrize("with_branch", [False, True])
@pytest.mark.parametrize("norm", ["none", "affine", "plain"])
@pytest.mark.parametrize("shape", [(1, 5, 3), (2, 40, 24), (3, 33, 200), (1, 7, 768)])
@torch.no_grad()
def test_errors_of_sum(way, shape, norm, with_branch):
    look = norms(shape[2])[norm]
    reference, x, branch = torch.randn(3, *shape)
    x += 3.0
    found, total = errors.errors_of_sum(reference, x, branch if with_branch else None, look)
    assert torch.equal(total, x + branch) if with_branch else total is x
    expected = (reference - (total if look is None else look(total))).double().norm(dim=-1)
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("divided", [False, True])
@pytest.mark.parametrize(("batch", "heads", "tokens", "dim"), [(1, 2, 50, 16), (2, 3, 9, 20)])
def test_errors_of_output(way, batch, heads, tokens, dim, divided):
    reference = torch.randn(batch, tokens, heads * dim)
    numerator = torch.randn(batch, tokens, heads, dim).transpose(1, 2)
    denominator = torch.rand(batch, heads, tokens) + 0.5 if divided else None
    found = errors.errors_of_output(reference, Output(numerator, denominator, torch.float32))
    out = numerator if denominator is None else numerator / denominator[..., None]
    expected = (reference - out.transpose(1, 2).flatten(2)).norm(dim=-1)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


class Doubled(nn.LayerNorm):
    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize("kind", ["subclass", "hook", "function", "other_axes"])
@torch.no_grad()
def test_norms_that_are_not_torchs_own_are_called(kind):
    reference, x = torch.randn(2, 1, 6, 32)
    norm = nn.LayerNorm(32)
    if kind == "subclass":
        norm = Doubled(32)
    elif kind == "hook":
        norm.register_forward_hook(lambda module, given, out: 2 * out)
    elif kind == "function":
        norm = torch.tanh
    else:
        norm = nn.LayerNorm((6, 32))
    found, _ = errors.errors_of_sum(reference, x, None, norm)
    torch.testing.assert_close(found, (reference - norm(x)).norm(dim=-1))


@pytest.mark.parametrize("numbers", [1, 16, 2**17])
def test_errors_are_the_same_in_blocks_of_any_size(monkeypatch, numbers):
    monkeypatch.setattr(errors, "CPU_BLOCK_NUMBERS", numbers)
    first, x = torch.randn(2, 2, 9, 4)
    asked = []

    def tokens(block):
        asked.append(x[:, block])
        return asked[-1]

    torch.testing.assert_close(
        errors.token_errors(first, tokens), (first - x).pow(2).sum(-1).sqrt()
    )
    assert torch.equal(torch.cat(asked, 1), x)


def test_errors_are_summed_in_single_precision():
    big, zero = torch.full((1, 1, 4096), 100.0).half(), torch.zeros(1, 1, 4096).half()
    found = errors.token_errors(big, lambda block: zero[:, block])
    torch.testing.assert_close(found, torch.tensor([[6400.0]]))
