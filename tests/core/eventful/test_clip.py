"""A block on clips: gradients by finite differences, and its own refusals."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmvitaccel.core.eventful.block import BlockSteps, Tokens
from mmvitaccel.core.eventful.clip import clip_block
from mmvitaccel.core.eventful.gates.policy import TopK

GRID, HEADS, DIM = (3, 3), 2, 2
CHANNELS = HEADS * DIM


class Given:
    """Tokens that are said beforehand, three gates a frame: errors have no say."""

    def __init__(self):
        self.asked = 0

    def select(self, error):
        generator = torch.Generator().manual_seed(self.asked)
        self.asked += 1
        return torch.stack([torch.randperm(9, generator=generator)[:4] for _ in error])


def block(window_size):
    torch.manual_seed(0)
    layers = {
        "qkv": nn.Linear(CHANNELS, 3 * CHANNELS), "proj": nn.Linear(CHANNELS, CHANNELS),
        "mlp": nn.Sequential(nn.Linear(CHANNELS, 6), nn.Tanh(), nn.Linear(6, CHANNELS)),
        "norm1": nn.LayerNorm(CHANNELS), "norm2": nn.LayerNorm(CHANNELS),
    }  # fmt: skip
    layers = {name: layer.double() for name, layer in layers.items()}

    def qkv(h, rope):
        return layers["qkv"](h).unflatten(2, (3, HEADS, DIM)).permute(2, 0, 3, 1, 4).unbind(0)

    side = [window_size or side for side in GRID]
    rows = [torch.randn(n, n, DIM, dtype=torch.double) for n in side]
    return layers, BlockSteps(
        norm1=layers["norm1"],
        qkv=qkv,
        project=lambda out, h: layers["proj"](out),
        norm2=layers["norm2"],
        mlp=layers["mlp"],
        scale=0.7,
        window_size=window_size,
        padding=lambda q: tuple(torch.full((1, HEADS, 1, DIM), v).to(q) for v in (0.1, 0.2, 0.3)),
        rel_pos=lambda grid: tuple(rows),
    )


@pytest.mark.parametrize("window_size", [0, 2])
def test_gradients_by_finite_differences(window_size):
    layers, steps = block(window_size)
    x = torch.randn(2 * 3, 9, CHANNELS, dtype=torch.double, requires_grad=True)
    # gradcheck changes its inputs in place, so that weights are checked as they are
    weights = [layer.weight for layer in (layers["qkv"], layers["proj"], layers["mlp"][0])]

    def run(x, *weights):
        return clip_block(steps, Tokens(x, GRID), 3, Given())

    assert torch.autograd.gradcheck(run, (x, *weights))


def test_a_token_that_does_not_pass_gives_no_gradient_to_its_branches():
    _, steps = block(0)
    x = torch.randn(2, 9, CHANNELS, dtype=torch.double, requires_grad=True)

    class First:
        def select(self, error):
            return torch.zeros(len(error), 1, dtype=torch.int64)

    out = clip_block(steps, Tokens(x, GRID), 2, First())
    out[1, 5].sum().backward()
    # by its skip alone, where it did not pass; and back to where it last did
    assert torch.equal(x.grad[1, 5], torch.ones(CHANNELS, dtype=torch.double))
    assert x.grad[1, 1:].count_nonzero() == CHANNELS
    assert x.grad[0, 5].any()


def test_a_batch_of_other_clips_is_refused():
    _, steps = block(0)
    with pytest.raises(ValueError, match="batch of 5 pictures cannot be split into clips of 2"):
        clip_block(steps, Tokens(torch.randn(5, 9, CHANNELS).double(), GRID), 2, TopK(3))
