"""A choice by errors times importance."""

from __future__ import annotations

import pytest
import torch

from mmvitaccel import LastObjects, RunningObjects, Threshold, TopK, Weighted
from mmvitaccel.core.eventful.gates.importance import Matters, Objects
from mmvitaccel.core.eventful.gates.policy import most_of

GRID = (4, 6)
CORNER = Objects(boxes=torch.tensor([[0.0, 0.0, 0.1, 0.1]]))


def chosen(policy, matters, error):
    found = policy.of_frame(matters, GRID, error.shape[1] - 24).select(error)
    return set((found[0].nonzero()[:, 0] if found.dtype == torch.bool else found[0]).tolist())


def test_errors_are_weighed():
    policy = Weighted(TopK(2), [LastObjects(grow=0)], floor=0.25)
    error = torch.zeros(1, 25)
    error[0, 0], error[0, 1], error[0, 9], error[0, 10] = 0.9, 0.5, 3.0, 1.0
    # a token before the grid counts whole, the corner too, the others a quarter
    assert chosen(policy, Matters(CORNER), error) == {0, 9}
    error[0, 9] = 1.5  # below the corner's 0.5
    assert chosen(policy, Matters(CORNER), error) == {0, 1}
    assert chosen(policy, Matters(), error) == {9, 10}  # nothing is known: by errors alone


def test_several_importances_are_averaged_and_unknown_ones_left_out():
    class Nothing:
        def of(self, matters, grid):
            return None

    class Everything:
        def of(self, matters, grid):
            return torch.ones(grid)

    error = torch.ones(1, 24)
    error[0, 5] = 1.5
    matters = Matters(CORNER)
    both = Weighted(TopK(1), [LastObjects(grow=0), Everything()], floor=0)
    assert chosen(both, matters, error) == {0}  # 1 against 0.5 * 1.5
    error[0, 5] = 2.1
    assert chosen(both, matters, error) == {5}
    assert chosen(Weighted(TopK(1), [LastObjects(grow=0), Nothing()]), matters, error) == {0}


def test_the_budget_is_the_bases():
    assert most_of(Weighted(TopK(7), [LastObjects()]), 24) == 7
    capped = Weighted(Threshold(0.5, at_most=3), [LastObjects(grow=0)], floor=0)
    assert most_of(capped, 24) == 3
    assert chosen(capped, Matters(CORNER), torch.ones(1, 24)) == {0}


def test_a_changed_budget_holds_from_the_next_frame_on():
    policy, error = Weighted(TopK(2), [LastObjects()]), torch.rand(1, 24)
    frame = policy.of_frame(Matters(CORNER), GRID, 0)
    policy.base.k = 5
    assert frame.select(error).shape == (1, 2)
    assert len(chosen(policy, Matters(CORNER), error)) == 5


def test_the_policy_keeps_nothing_of_a_stream():
    policy = Weighted(TopK(1), [RunningObjects()], floor=0)
    a, b = Matters(CORNER), Matters()
    assert chosen(policy, a, torch.ones(1, 24)) == {0}
    error = torch.ones(1, 24)
    error[0, 20] = 1.1
    assert chosen(policy, b, error) == {20}
    assert a.kept and not b.kept


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match=r"importance=\[\] must be a list of one or more"):
        Weighted(TopK(1), [])
    for floor in (-0.1, 1, float("nan")):
        with pytest.raises(ValueError, match=rf"floor={floor!r} must be at least 0"):
            Weighted(TopK(1), [LastObjects()], floor)
    with pytest.raises(ValueError, match=r"which is missing here .*; use TopK\(k=1\)"):
        Weighted(TopK(1), [LastObjects()]).select(torch.ones(1, 24))
    with pytest.raises(ValueError, match="the token grid of a transformer, which is missing here"):
        Weighted(TopK(1), [LastObjects()]).of_frame(Matters(CORNER), None, 0)
