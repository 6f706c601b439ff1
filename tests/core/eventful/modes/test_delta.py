from __future__ import annotations

import pytest
import torch

from mmvitaccel.core.attention.rel_pos import RelPos, offset_rows
from mmvitaccel.core.eventful.gates.selection import Selection
from mmvitaccel.core.eventful.modes.delta import DeltaAttention
from mmvitaccel.core.eventful.modes.mode import QKV, Change, Logits, TokenwiseAttention

GRID, HEADS, DIM = (3, 4), 2, 5
TOKENS = GRID[0] * GRID[1]


def logits_of(q, k, logits):
    scores = q @ k.T * logits.scale
    for i in range(TOKENS):
        for j in range(TOKENS):
            row = (
                logits.rel_pos.rows_h[i // GRID[1], j // GRID[1]]
                + logits.rel_pos.rows_w[i % GRID[1], j % GRID[1]]
            )
            scores[i, j] += q[i] @ row
    return scores


def by_head(out, qkv):
    """(B, h, N, D) of an output, whose every token is read."""
    return out.block(slice(None)).unflatten(-1, (qkv.q.shape[1], -1)).transpose(1, 2)


class SlowDelta:
    """The recurrences of section 4.2 for one head, N x N and one column at a time."""

    def __init__(self, q, k, v, logits):
        self.scores = logits_of(q, k, logits)
        self.a = self.scores.softmax(-1)
        self.v = v.clone()
        self.product = self.a @ v

    def step(self, q, k, v, index, logits):
        fresh = logits_of(q, k, logits)
        for token in index:
            self.scores[token], self.scores[:, token] = fresh[token], fresh[:, token]
        a = self.scores.softmax(-1)
        for token in index:
            da, dv = a[:, token] - self.a[:, token], v[token] - self.v[token]
            self.product = self.product + a[:, token, None] * dv + da[:, None] * self.v[token]
        for token in index:
            self.a[:, token], self.v[token] = a[:, token], v[token]
        return self.product


@pytest.mark.parametrize("ragged", [False, True])
def test_follows_the_papers_recurrences(ragged):
    torch.manual_seed(0)
    tables = (torch.randn(2 * side - 1, DIM) for side in GRID)
    logits = Logits(0.4, RelPos(*(offset_rows(t, side) for t, side in zip(tables, GRID))))
    qkv = QKV(*(torch.randn(2, HEADS, TOKENS, DIM) for _ in range(3)))
    slow = [[SlowDelta(*(t[b, h] for t in qkv), logits) for h in range(HEADS)] for b in range(2)]
    mode = DeltaAttention()
    out, memory = mode.start(qkv, logits)
    torch.testing.assert_close(out, TokenwiseAttention().start(qkv, logits)[0])
    gaps = []
    for _ in range(8):
        index = torch.stack([torch.randperm(TOKENS)[:4] for _ in range(2)])
        chosen = torch.tensor([[True] * 4, [True, True, False, False]]) if ragged else None
        selection = Selection(index, TOKENS, chosen)
        old = [selection.gather(t) for t in qkv]
        for buffer in qkv:
            selection.put(buffer, torch.randn(2, HEADS, 4, DIM))
        out = by_head(mode.step(memory, qkv, Change(selection, selection, *old[1:]), logits), qkv)
        for b in range(2):
            mine = index[b] if chosen is None else index[b][chosen[b]]
            for h in range(HEADS):
                q, k, v = (t[b, h] for t in qkv)
                torch.testing.assert_close(
                    out[b, h], slow[b][h].step(q, k, v, mine, logits), rtol=1e-4, atol=1e-5
                )
        gaps.append(float((out - TokenwiseAttention().start(qkv, logits)[0]).abs().max()))
    assert min(gaps) > 1e-3, "the accumulator is an approximation; this one seems not to be it"


def test_all_tokens_equal_dense_and_outputs_are_the_callers_own():
    torch.manual_seed(0)
    logits = Logits(0.4)
    qkv = QKV(*(torch.randn(1, HEADS, TOKENS, DIM) for _ in range(3)))
    mode = DeltaAttention()
    out, memory = mode.start(qkv, logits)
    out.zero_()
    index = torch.arange(TOKENS)[None]
    selection = Selection(index, TOKENS)
    new = QKV(*(torch.randn(1, HEADS, TOKENS, DIM) for _ in range(3)))
    out = by_head(mode.step(memory, new, Change(selection, selection, qkv.k, qkv.v), logits), qkv)
    torch.testing.assert_close(
        out, TokenwiseAttention().start(new, logits)[0], rtol=1e-5, atol=1e-5
    )
    out.zero_()
    nothing = Selection(torch.empty(1, 0, dtype=torch.int64), TOKENS)
    empty = torch.empty(1, HEADS, 0, DIM)
    again = by_head(mode.step(memory, new, Change(nothing, nothing, empty, empty), logits), qkv)
    torch.testing.assert_close(
        again, TokenwiseAttention().start(new, logits)[0], rtol=1e-5, atol=1e-5
    )
