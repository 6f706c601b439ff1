"""Tokens that must pass, beside what another policy chooses."""

from __future__ import annotations

import pytest
import torch

from mmvitaccel import Always, RandomTokens, Threshold, TopK
from mmvitaccel.core.eventful.gates.policy import choose
from mmvitaccel.core.eventful.gates.required import Required


def required(base, *tokens, of=12):
    mask = torch.zeros(of, dtype=torch.bool)
    mask[list(tokens)] = True
    return Required(base, mask, len(tokens))


def chosen(policy, error):
    return set(choose(policy, error).mask()[0].nonzero()[:, 0].tolist())


def test_they_take_the_places_of_the_smallest_errors():
    error = torch.arange(12.0)[None]
    assert chosen(required(TopK(4), 0, 3), error) == {0, 3, 10, 11}
    assert chosen(required(TopK(4), 11, 3), error) == {3, 9, 10, 11}


@pytest.mark.parametrize("base", [TopK(2), RandomTokens(2)])
def test_more_than_the_budget_pass_all_the_same(base):
    assert chosen(required(base, 1, 2, 5, 7), torch.rand(1, 12)) == {1, 2, 5, 7}


def test_a_policy_that_does_not_look_at_errors():
    for _ in range(20):
        found = chosen(required(RandomTokens(5), 4, 6), torch.rand(1, 12))
        assert {4, 6} <= found and len(found) == 5


def test_masks_and_everything():
    error = torch.arange(12.0)[None]
    assert chosen(required(Threshold(9.5), 1), error) == {1, 10, 11}
    assert chosen(required(Threshold(9.5, at_most=1), 1, 2), error) == {1, 2}
    assert chosen(required(Always(), 1), error) == set(range(12))
