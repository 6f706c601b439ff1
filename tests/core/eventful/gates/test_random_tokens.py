from __future__ import annotations

import pytest
import torch

from mmvitaccel import RandomTokens
from mmvitaccel.core.eventful.gates.policy import choose


def test_tokens_are_drawn_without_regard_to_errors():
    error = torch.arange(200.0).expand(50, 200)
    torch.manual_seed(0)
    index = choose(RandomTokens(20), error).index
    assert all(len(set(row.tolist())) == 20 for row in index)
    # 1000 draws from 0 to 199: the mean is 99.5, and has a standard deviation of 1.8
    assert index.float().mean().item() == pytest.approx(99.5, abs=9)
    torch.manual_seed(0)
    assert torch.equal(index, choose(RandomTokens(20), error.flip(1)).index)


def test_more_than_there_are_means_all_and_none_is_refused():
    assert sorted(RandomTokens(9).select(torch.zeros(1, 4))[0].tolist()) == [0, 1, 2, 3]
    for k in (0, 1.5, True):
        with pytest.raises(ValueError, match=f"RandomTokens: k={k!r} must be a whole number"):
            RandomTokens(k)
