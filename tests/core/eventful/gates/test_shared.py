from __future__ import annotations

import pytest
import torch

from mmvitaccel import SharedTopK, Threshold, TopK
from mmvitaccel.core.eventful.gates.policy import (
    Always,
    Gated,
    choose,
    choose_for_all,
    for_one_frame,
    frames_for_all,
)
from mmvitaccel.registry import POLICIES

# the first stream is busy, the second has one small change, nothing moves in the third
ERROR = torch.tensor([[5.0, 4.0, 3.0, 2.0], [0.5, 1.0, 0.0, 0.1], [0.0, 0.0, 0.2, 0.0]])


@pytest.mark.parametrize(
    ("k", "floor", "expected"),
    [
        (1, 0, [[1, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]),
        (1, 1, [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]),
        (2, 0, [[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]]),
        (2, 1, [[1, 1, 1, 1], [0, 1, 0, 0], [0, 0, 1, 0]]),
        (2, 9, [[1, 1, 0, 0], [1, 1, 0, 0], None]),
        (9, 0, [[1, 1, 1, 1]] * 3),
    ],
)
def test_a_busy_stream_borrows_from_quiet_ones(k, floor, expected):
    mask = SharedTopK(k, floor).select(ERROR)
    assert mask.sum() == 3 * min(k, 4)
    for row, wanted in zip(mask, expected):
        if wanted is None:  # of equal errors any may pass
            assert row[2] and row.sum() == 2
        else:
            assert row.int().tolist() == wanted


def test_a_stream_alone_gets_what_top_k_gives_it():
    error = torch.rand(1, 50)
    assert torch.equal(choose(SharedTopK(7), error).mask(), choose(TopK(7), error).mask())


def test_a_number_that_is_none_passes():
    error = torch.tensor([[9.0, 8.0], [float("nan"), 0.0]])
    assert SharedTopK(1).select(error).tolist() == [[True, False], [True, False]]


def test_streams_are_asked_together_and_the_others_alone():
    policy = SharedTopK(1)
    rows = list(ERROR.split(1))
    asked = [Gated(policy, row) for row in rows]
    asked[1:1] = [Gated(Always(), rows[1]), Gated(TopK(2), rows[1])]
    asked.append(Gated(Threshold(9.0), rows[0]))
    chosen = choose_for_all(asked)
    counts = [selection.counts for selection in chosen]
    assert counts == [[3], [4], [2], [0], [0], [0]]
    assert [s.index.shape[1] for s in chosen] == [3, 4, 2, 0, 0, 0]  # no row is filled up
    assert sorted(chosen[0].index[0].tolist()) == [0, 1, 2] and chosen[1].everything
    alone = choose_for_all([Gated(policy, row) for row in rows[:1]])
    assert alone[0].counts == [1]


def test_two_budgets_do_not_mix():
    one, other = SharedTopK(1), SharedTopK(2)
    rows = ERROR.split(1)
    chosen = choose_for_all(
        [Gated(one, rows[0]), Gated(other, rows[1]), Gated(one, rows[2]), Gated(other, rows[2])]
    )
    assert [s.counts for s in chosen] == [[2], [3], [0], [1]]


def test_all_tokens_are_everything():
    assert all(s.everything for s in choose_for_all([Gated(SharedTopK(4), ERROR[:1])] * 2))


@pytest.mark.parametrize("value", [0, -1, 1.5, True])
def test_k_must_be_a_number_of_tokens(value):
    with pytest.raises(ValueError, match=rf"SharedTopK: k={value!r} must be a whole number"):
        SharedTopK(value)
    policy = SharedTopK(3)
    with pytest.raises(ValueError, match=rf"k={value!r}"):
        policy.k = value
    assert policy.k == 3


def test_the_floor_must_be_a_number_of_tokens():
    for value in (-1, 0.5, True):
        with pytest.raises(ValueError, match=rf"SharedTopK: floor={value!r} must be .* least 0"):
            SharedTopK(3, value)


def test_a_budget_may_change_while_a_frame_is_computed():
    policy = SharedTopK(3, floor=1)
    frame = for_one_frame(policy)
    policy.k = 5
    assert (frame.k, frame.floor, frame.shared) == (3, 1, True)
    assert frames_for_all(policy, 12) == 3  # as for TopK


def test_a_config_names_it():
    policy = POLICIES.build(dict(type="SharedTopK", k=5, floor=2))
    assert repr(policy) == "SharedTopK(k=5, floor=2)" and repr(SharedTopK(1)) == "SharedTopK(k=1)"
