"""Attention by the compiled kernel against its definition, and against torch's operators."""

from __future__ import annotations

import pytest
import torch

from mmvitaccel.core.attention.dense import dense_attention, dense_attention_with_lse
from mmvitaccel.core.attention.rel_pos import RelPos
from mmvitaccel.core.eventful.modes.mode import QKV, Logits
from mmvitaccel.core.eventful.modes.windowed_attention import WindowedAttention
from mmvitaccel.core.kernels import compiler
from mmvitaccel.core.kernels.attend import attend, attend_windows
from mmvitaccel.core.macs.counter import MacsCounter

SCALE = 0.3
NO_POSITIONS = (None, None, None)

pytestmark = pytest.mark.usefixtures("kernel")


def made(batch, heads, grid, key_grid, dim, num_rows=None):
    """Queries, keys, values as a layer gives them, and relative positions of the queries."""
    torch.manual_seed(0)
    (height, width), (key_height, key_width) = grid, key_grid
    # (B, tokens, heads, D) -> (B, heads, tokens, D), as views
    q = torch.randn(batch, height * width, heads, dim).transpose(1, 2)
    k, v = torch.randn(2, batch, key_height * key_width, heads, dim).transpose(2, 3)
    tables = torch.randn(height, key_height, dim) * 0.3, torch.randn(width, key_width, dim) * 0.3
    place = None
    if num_rows is not None:
        place = torch.stack([torch.randperm(height * width)[:num_rows] for _ in range(batch)])
        q = torch.stack([q[b][:, place[b]] for b in range(batch)])
    return q, k, v, RelPos(*tables, place)


def defined(q, k, v, rel_pos):
    """Output and log-sum-exp from the definition, in double precision."""
    q, k, v = q.double(), k.double(), v.double()
    logits = SCALE * q @ k.transpose(-1, -2)
    if rel_pos is not None:
        rows_h, rows_w, place = rel_pos
        if place is None:
            place = torch.arange(q.shape[2]).expand(len(q), -1)
        y, x = place // rows_w.shape[0], place % rows_w.shape[0]
        keys = torch.arange(k.shape[2])
        table = rows_h[y][:, :, keys // rows_w.shape[1]] + rows_w[x][:, :, keys % rows_w.shape[1]]
        logits = logits + torch.einsum("bhqd,bqkd->bhqk", q, table.double())
    return logits.softmax(-1) @ v, logits.logsumexp(-1)


@pytest.mark.parametrize("with_positions", [False, True])
@pytest.mark.parametrize(
    ("batch", "heads", "grid", "key_grid", "dim", "num_rows"),
    [
        (1, 2, (6, 8), (6, 8), 16, None),
        (2, 3, (5, 7), (3, 4), 64, None),
        (2, 1, (5, 70), (5, 70), 32, 33),
        (1, 1, (3, 200), (3, 200), 48, None),
        (1, 1, (7, 7), (7, 7), 80, 1),
        (1, 1, (40, 30), (40, 30), 96, 17),
        (3, 2, (4, 4), (4, 4), 112, 0),
        (1, 1, (4, 4), (1, 1), 128, None),
    ],
)
def test_against_its_definition(batch, heads, grid, key_grid, dim, num_rows, with_positions):
    q, k, v, rel_pos = made(batch, heads, grid, key_grid, dim, num_rows)
    rel_pos = rel_pos if with_positions else None
    out, lse = attend(q, k, v, SCALE, *(rel_pos or NO_POSITIONS))
    expected, expected_lse = defined(q, k, v, rel_pos)
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=5e-6)
    torch.testing.assert_close(lse.double(), expected_lse, rtol=1e-6, atol=5e-6)


def test_dense_attention_is_the_same_with_and_without_it(monkeypatch):
    q, k, v, rel_pos = made(2, 3, (9, 11), (9, 11), 32)
    with_it = dense_attention(q, k, v, SCALE, rel_pos)
    with_lse = dense_attention_with_lse(q, k, v, SCALE, rel_pos)
    monkeypatch.setattr(compiler, "kernels", lambda: None)
    without = dense_attention(q, k, v, SCALE, rel_pos)
    assert not torch.equal(with_it, without)
    torch.testing.assert_close(with_it, without, rtol=1e-5, atol=5e-6)
    for ours, theirs in zip(with_lse, dense_attention_with_lse(q, k, v, SCALE, rel_pos)):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=5e-6)


def test_gradients_go_past_it():
    q, k, v, rel_pos = made(1, 1, (4, 4), (4, 4), 16)
    table = rel_pos.rows_h.requires_grad_()
    dense_attention(q, k, v, SCALE, rel_pos).sum().backward()
    assert table.grad.abs().sum() > 0
    with torch.no_grad():
        assert not dense_attention(q, k, v, SCALE, rel_pos).requires_grad


@pytest.mark.parametrize("with_positions", [False, True])
@pytest.mark.parametrize("grid", [(4, 4), (5, 7), (9, 3)])
def test_windows_are_the_same_with_and_without_it(monkeypatch, grid, with_positions):
    torch.manual_seed(0)
    size, batch, heads, dim = 4, 2, 3, 16
    rows = [torch.randn(size, size, dim) * 0.3 for _ in range(2)]
    qkv = QKV(*torch.randn(3, batch, heads, grid[0] * grid[1], dim))
    padding = QKV(*torch.randn(3, 1, heads, 1, dim))
    given = (qkv, padding, Logits(SCALE, RelPos(*rows) if with_positions else None), grid, size)
    _, with_it = WindowedAttention.start(*given)
    monkeypatch.setattr(compiler, "kernels", lambda: None)
    _, without = WindowedAttention.start(*given)
    assert not torch.equal(with_it, without)
    torch.testing.assert_close(with_it, without, rtol=1e-5, atol=5e-6)


def test_any_number_of_threads_gives_the_same_bits():
    q, k, v, rel_pos = made(1, 3, (20, 30), (20, 30), 32)
    before, results = torch.get_num_threads(), []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        results.append(attend(q, k, v, SCALE, *rel_pos)[0])
    torch.set_num_threads(before)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_large_logits_and_what_is_not_a_number():
    q, k, v, _ = made(1, 1, (4, 4), (20, 20), 16)
    q[0, 0, 3] *= 1e4
    q[0, 0, 7, 0] = float("nan")
    out, lse = attend(q, k, v, SCALE, *NO_POSITIONS)
    expected, expected_lse = defined(q, k, v, None)
    for given, wanted in ((out, expected), (lse.unsqueeze(-1), expected_lse.unsqueeze(-1))):
        assert given[0, 0, 7].isnan().all()
        rest = torch.arange(16) != 7
        torch.testing.assert_close(
            given[..., rest, :].double(), wanted[..., rest, :], rtol=1e-4, atol=1e-5
        )


def test_multiply_adds_are_counted():
    q, k, v, rel_pos = made(2, 3, (4, 6), (2, 3), 16, 5)
    qkv, slots = torch.randn(2, 13, 3, 2, 16), torch.arange(24).view(6, 4)
    counter = MacsCounter()
    with counter:
        attend(q, k, v, SCALE, *rel_pos)
        attend_windows(qkv, slots, torch.empty(2, 13, 32), SCALE, None, None)
    report = counter.report()
    assert report.total == 2 * 3 * 5 * 16 * (2 * 6 + 2 + 3) + 6 * 4 * 2 * 16 * 2 * 4
    assert not report.uncounted


def test_windows_must_be_contiguous():
    qkv = torch.randn(1, 5, 2, 3, 16).transpose(2, 3)
    with pytest.raises(ValueError, match="qkv and out must be contiguous"):
        attend_windows(qkv, torch.arange(4)[None], torch.empty(1, 5, 32), SCALE, None, None)
