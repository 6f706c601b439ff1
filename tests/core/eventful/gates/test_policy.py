from __future__ import annotations

import warnings

import pytest
import torch

from mmvitaccel.core.eventful.gates.policy import Always, Threshold, TopFraction, TopK, choose

ERROR = torch.tensor([[0.5, 3.0, 0.1, 2.0], [4.0, 0.0, 0.2, 0.3]])


def passing(policy, error=ERROR):
    selection = choose(policy, error)
    chosen = torch.zeros(error.shape, dtype=torch.bool)
    marks = selection.chosen
    marks = torch.ones_like(selection.index, dtype=torch.bool) if marks is None else marks
    return chosen.scatter(1, selection.index, marks)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (TopK(2), [[0, 1, 0, 1], [1, 0, 0, 1]]),
        (TopK(4), [[1, 1, 1, 1], [1, 1, 1, 1]]),
        (TopFraction(0.3), [[0, 1, 0, 1], [1, 0, 0, 1]]),
        (TopFraction(0.25), [[0, 1, 0, 0], [1, 0, 0, 0]]),
        (Threshold(0.3), [[1, 1, 0, 1], [1, 0, 0, 0]]),
        (Threshold(9.0), [[0, 0, 0, 0], [0, 0, 0, 0]]),
        (Always(), [[1, 1, 1, 1], [1, 1, 1, 1]]),
    ],
    ids=repr,
)
def test_policies_let_the_largest_errors_through(policy, expected):
    assert torch.equal(passing(policy), torch.tensor(expected).bool())


def test_k_above_the_tokens_lets_all_through_and_says_so_once():
    policy = TopK(9)
    with pytest.warns(UserWarning, match="k=9 but the frame has 4 tokens") as caught:
        first = choose(policy, ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second = choose(policy, ERROR)
    assert len(caught) == 1 and first.everything and second.everything


@pytest.mark.parametrize("k", [0, -3, 1.5, True])
def test_k_must_be_a_positive_number_of_tokens(k):
    with pytest.raises(ValueError, match=f"k={k!r} must be a whole number"):
        TopK(k)
    policy = TopK(2)
    with pytest.raises(ValueError, match=f"k={k!r}"):
        policy.k = k
    assert policy.k == 2


@pytest.mark.parametrize("kind", [TopK, TopFraction])
def test_another_budget_of_the_same_policy(kind):
    class Marked(kind):
        """A subclass stays what it is."""

    policy, num_tokens = Marked(1), 49
    error = torch.arange(float(num_tokens))[None]
    for k in range(1, num_tokens + 1):
        changed = policy.with_budget(k, num_tokens)
        assert type(changed) is Marked and changed.most(num_tokens) == k
        assert passing(changed, error)[0].nonzero().flatten().tolist() == [*range(49 - k, 49)]
    assert vars(policy) == vars(Marked(1))


def test_other_arguments_are_checked():
    for fraction in (0, -0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=f"fraction={fraction}"):
            TopFraction(fraction)
    for threshold in (-1, float("nan")):
        with pytest.raises(ValueError, match=f"threshold={threshold}"):
            Threshold(threshold)


def test_a_token_that_is_no_number_passes():
    error = torch.tensor([[0.5, float("nan"), 0.1]])
    assert passing(Threshold(1.0), error).tolist() == [[False, True, False]]
    assert passing(TopK(1), error).tolist() == [[False, True, False]]


class Answer:
    def __init__(self, answer):
        self.answer = answer

    def select(self, error):
        return self.answer


def test_a_users_policy_is_a_class_with_one_method():
    assert passing(Answer(torch.tensor([[2], [3]]))).nonzero().tolist() == [[0, 2], [1, 3]]
    assert torch.equal(passing(Answer(ERROR > 1)), ERROR > 1)
    reversed_order = choose(Answer(torch.tensor([[3, 2, 1, 0]] * 2)), ERROR)
    assert reversed_order.everything and reversed_order.index[0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        ([1, 2], TypeError, "Answer.select returned list"),
        (torch.tensor([[0.5]]), TypeError, "returned torch.float32"),
        (torch.ones(2, 3).bool(), ValueError, r"a mask \(2, 3\) for errors \(2, 4\)"),
        (torch.tensor([1, 2]), ValueError, r"an index \(2,\) for errors \(2, 4\)"),
        (torch.zeros(2, 5).long(), ValueError, r"an index \(2, 5\).*k at most 4"),
    ],
)
def test_a_wrong_answer_is_named(answer, error, message):
    with pytest.raises(error, match=message):
        choose(Answer(answer), ERROR)


def test_a_threshold_with_a_cap_takes_the_largest():
    error = torch.tensor([[0.1, 3.0, 2.0, 5.0, float("nan")], [0.1, 0.2, 3.0, 0.0, 0.3]])
    assert Threshold(1.0, at_most=3).select(error).tolist() == [
        [False, True, False, True, True], [False, False, True, False, False],
    ]  # fmt: skip
    assert torch.equal(Threshold(1.0, at_most=9).select(error), Threshold(1.0).select(error))
    policy = Threshold(1.0, at_most=2)
    policy.at_most = None
    assert torch.equal(policy.select(error), Threshold(1.0).select(error))
    for value in (0, 1.5, True):
        with pytest.raises(ValueError, match=rf"at_most={value!r} must be a whole number"):
            Threshold(1.0, at_most=value)
    assert repr(Threshold(1.0, at_most=2)) == "Threshold(threshold=1.0, at_most=2)"
