"""Cells that pass the gate of a map beyond a policy's budget."""

from __future__ import annotations

import pytest
import torch

from mmvitaccel.core.eventful.gates.policy import Always, Threshold, TopFraction, TopK, choose
from mmvitaccel.core.eventful.gates.random_tokens import RandomTokens
from mmvitaccel.core.eventful.gates.shared import SharedTopK
from mmvitaccel.core.eventful.maps import top_up
from mmvitaccel.core.eventful.maps.memory import MapMemory, take_together
from mmvitaccel.core.eventful.maps.top_up import CLEAR, TIMES, topped_up


def passing(policy, relative):
    """The cells that pass, as lists of positions."""
    found = topped_up(choose(policy, relative), relative, policy)
    return [row.nonzero().flatten().tolist() for row in found.mask()]


def errors(*values):
    return torch.tensor([values]) * CLEAR


def test_a_budget_that_covers_what_changed_stays_as_it_is():
    relative = errors(5.0, 0.9, 0.0, 3.0, 0.5, 0.1)
    policy = TopK(2)
    given = choose(policy, relative)
    assert passing(policy, relative) == [[0, 3]]
    assert passing(TopK(3), relative) == [[0, 1, 3]], "the budget itself passes in any case"
    assert topped_up(given, torch.zeros(1, 6), policy).counts == [2]


def test_cells_that_clearly_changed_pass_too_the_largest_first():
    assert passing(TopK(1), errors(1.5, 2.0, 0.0, 0.9, 1.2, 0.0)) == [[0, 1, 4]]
    many = torch.linspace(2, 20, 19)[None] * CLEAR
    assert passing(TopK(2), many) == [list(range(19 - TIMES * 2, 19))]
    assert passing(TopFraction(0.1), many) == passing(TopK(2), many)
    assert passing(TopK(10), many) == [list(range(19))]


def test_cells_that_are_not_finite_pass():
    assert passing(TopK(1), errors(0.0, float("nan"), float("nan"), 0.5)) == [[1, 2]]


def test_each_stream_of_a_batch_has_its_own_number():
    relative = torch.stack(
        [errors(9, 8, 7, 0, 0, 0, 0, 0, 0)[0], errors(0, 0, 0, 0, 0, 0, 0, 0, 9)[0]]
    )
    assert passing(TopK(1), relative) == [[0, 1, 2], [8]]


def test_a_shared_budget_is_topped_up():
    relative = errors(9, 8, 7, 0, 0, 0)
    assert passing(SharedTopK(1), relative) == [[0, 1, 2]]


@pytest.mark.parametrize("policy", [Threshold(5 * CLEAR), RandomTokens(1), Always()], ids=repr)
def test_policies_without_a_budget_by_errors_decide_alone(policy):
    relative = errors(9, 8, 2, 2, 2, 2)
    torch.manual_seed(0)
    alone = choose(policy, relative).mask()
    torch.manual_seed(0)
    assert torch.equal(topped_up(choose(policy, relative), relative, policy).mask(), alone)


def test_where_reading_waits_rows_are_padded(monkeypatch):
    relative = errors(1.5, 2.0, 0.0, 0.9, 1.2, 0.0)
    expected = passing(TopK(1), relative)
    monkeypatch.setattr(top_up, "reading_is_free", lambda device: False)
    found = topped_up(choose(TopK(1), relative), relative, TopK(1))
    assert found.index.shape == (1, TIMES) and found.counts == [3]
    assert passing(TopK(1), relative) == expected


def test_a_memory_tops_up_only_where_it_is_asked_to():
    before = torch.ones(1, 4, 3, 4)
    after = before.clone()
    after[..., 1, :3] += 1
    passed = []
    for tops_up in (False, True):
        memory = MapMemory()
        take_together([memory], [[before]], [TopK(1)], 0, tops_up)
        (sheets,) = take_together([memory], [[after]], [TopK(1)], 0, tops_up)
        passed.append(memory.passed[0].counts)
        same = (sheets[0].map == after).all(1)
        assert torch.equal(same[:, 1, :3].sum(), torch.tensor(passed[-1][0]))
    assert passed == [[1], [3]]
