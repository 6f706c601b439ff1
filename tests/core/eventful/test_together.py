"""Frames in step: which tokens a layer is given together, and that each gets its own back."""

from __future__ import annotations

import pytest
import torch

from mmvitaccel.core.eventful.gates.policy import Gated
from mmvitaccel.core.eventful.gates.shared import SharedTopK
from mmvitaccel.core.eventful.together import Wanted, in_step

SIZES = [3, 0, 5]


class Layers:
    """Two layers that note what they are given."""

    def __init__(self) -> None:
        self.given = []

    def heads(self, x, rope):
        self.given.append(x.shape[1])
        y = x.unflatten(2, (2, -1)).transpose(1, 2)  # (1, 2, M, D)
        return (y, y + 1) if rope is None else (y * rope, y + rope)

    def row(self, x, normed):
        self.given.append(x.shape[1])
        return 2 * x - normed()

    def frame(self, x, rope=None, alone=False):
        y, z = yield Wanted(self.heads, x, (rope,), alone)
        out = (y + z).transpose(1, 2).flatten(2)
        added = yield Wanted(self.row, out, (lambda: x,))
        return added + out


@pytest.fixture
def frames():
    torch.manual_seed(0)
    return [(torch.randn(1, size, 8), torch.randn(1, 2, size, 4)) for size in SIZES]


@pytest.mark.parametrize("with_rope", [False, True])
def test_each_gets_what_it_gets_alone(frames, with_rope):
    frames = [(x, rope if with_rope else None) for x, rope in frames]
    layers = Layers()
    alone = [in_step([layers.frame(x, rope)])[0] for x, rope in frames]
    assert layers.given == [size for size in SIZES for _ in range(2)]
    layers.given.clear()
    together = in_step([layers.frame(x, rope) for x, rope in frames])
    assert layers.given == [sum(SIZES)] * 2
    assert all(torch.equal(a, b) for a, b in zip(alone, together))
    assert [out.shape[1] for out in together] == SIZES


def test_what_is_to_be_alone_is(frames):
    layers = Layers()
    expected = [in_step([layers.frame(x)])[0] for x, _ in frames]
    layers.given.clear()
    outs = in_step([layers.frame(x, None, x.shape[1] == 5) for x, _ in frames])
    assert layers.given == [3, 5, 8]  # those of three and of none together
    assert all(torch.equal(a, b) for a, b in zip(expected, outs))


def test_a_shared_policy_sees_all_frames_at_a_gate():
    def frame(error, policy):
        selection = yield Gated(policy, error)
        y = yield Wanted(lambda x: 2 * x, selection.gather(error.unsqueeze(-1)))
        return y.flatten()

    torch.manual_seed(0)
    busy, quiet = 1 + torch.rand(1, 6), torch.rand(1, 6)
    policy = SharedTopK(3)
    outs = in_step([frame(busy, policy), frame(quiet, policy)])
    assert torch.equal(outs[0].sort()[0], 2 * busy[0].sort()[0]) and outs[1].numel() == 0
    (alone,) = in_step([frame(quiet, policy)])
    assert torch.equal(alone.sort()[0], 2 * quiet[0].sort()[0][-3:])
