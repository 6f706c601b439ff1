from __future__ import annotations

import torch

from mmvitaccel.core.eventful.gates.gate import DeltaGate, TokenBuffer, TokenGate
from mmvitaccel.core.eventful.gates.policy import Threshold, TopK, choose
from mmvitaccel.core.eventful.gates.token_errors import token_errors


def video(frames=6, batch=2, tokens=9, channels=4):
    torch.manual_seed(0)
    return torch.randn(frames, batch, tokens, channels).cumsum(0)


def of(x):
    """As a gate asks for its tokens: a block at a time."""
    return lambda block: x[:, block]


def test_gate_and_buffer_follow_the_papers_recurrence():
    first, *rest = video()
    one, buffer = TokenGate(first.clone()), TokenBuffer(2 * first)
    reference, results = first.clone(), 2 * first
    for x in rest:
        passed = choose(TopK(3), token_errors(one.reference, of(x)))
        tokens = passed.gather(x)
        one.let_through(passed, tokens, of(x))
        out = buffer.update(passed, 2 * tokens)
        for b in range(2):
            errors = (reference[b] - x[b]).pow(2).sum(-1).sqrt()
            for token in errors.argsort(descending=True)[:3]:
                reference[b, token] = x[b, token]
                results[b, token] = 2 * x[b, token]
        assert torch.equal(one.reference, reference)
        assert torch.equal(out, results)


def test_stgt_compares_with_the_frame_before_whether_it_passed_or_not():
    first, *rest = video()
    one, before = TokenGate(first.clone(), "last_frame"), first
    for x in rest:
        passed = choose(Threshold(2.0), token_errors(one.reference, of(x)))
        errors = (before - x).pow(2).sum(-1).sqrt()
        assert passed.counts == (errors > 2.0).sum(1).tolist()
        one.let_through(passed, passed.gather(x), of(x))
        before = x
        assert torch.equal(one.reference, x)


def test_slow_change_passes_in_the_end_but_never_with_stgt():
    x = torch.zeros(1, 4, 2)
    paper, stgt = TokenGate(x.clone()), TokenGate(x.clone(), "last_frame")
    counts = {"gate": 0, "stgt": 0}
    for _ in range(10):
        x = x + 0.1
        for name, one in (("gate", paper), ("stgt", stgt)):
            passed = choose(Threshold(0.5), token_errors(one.reference, of(x)))
            one.let_through(passed, passed.gather(x), of(x))
            counts[name] += passed.counts[0]
    assert counts == {"gate": 8, "stgt": 0}


def test_delta_gate_gives_the_difference_along_rows_and_columns():
    old, new = torch.randn(2, 5, 6), torch.randn(2, 5, 6)
    index = torch.tensor([[4, 1], [0, 2]])
    for dim, shape in ((-2, (2, 2, 6)), (-1, (2, 5, 2))):
        delta = DeltaGate(old.clone(), dim)
        spread = (index[..., None] if dim == -2 else index[:, None]).expand(shape)
        before, change = delta.let_through(spread, new.gather(dim, spread))
        assert torch.equal(before, old.gather(dim, spread))
        assert torch.equal(change, new.gather(dim, spread) - old.gather(dim, spread))
        assert torch.equal(delta.reference, old.scatter(dim, spread, new.gather(dim, spread)))
