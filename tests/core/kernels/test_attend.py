"""Attention by the compiled kernel where it is used, against torch's operators."""

from __future__ import annotations

import pytest
import torch

from mmvitaccel.core.attention.dense import dense_attention, dense_attention_with_lse
from mmvitaccel.core.attention.rel_pos import RelPos
from mmvitaccel.core.eventful.modes.mode import QKV, Logits
from mmvitaccel.core.eventful.modes.windowed_attention import WindowedAttention
from mmvitaccel.core.kernels import operators
from mmvitaccel.core.kernels.attend import attend, attend_windows
from mmvitaccel.core.macs.counter import MacsCounter

SCALE = 0.3

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


def test_dense_attention_is_the_same_with_and_without_it(monkeypatch):
    q, k, v, rel_pos = made(2, 3, (9, 11), (9, 11), 32)
    with_it = dense_attention(q, k, v, SCALE, rel_pos)
    with_lse = dense_attention_with_lse(q, k, v, SCALE, rel_pos)
    monkeypatch.setattr(operators, "kernels", lambda: None)
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
    monkeypatch.setattr(operators, "kernels", lambda: None)
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
