from __future__ import annotations

import pytest
import torch

from mmvitaccel.core.attention import dense as module
from mmvitaccel.core.attention.dense import dense_attention
from mmvitaccel.core.attention.pooling import pool_grid, pooled_grid
from mmvitaccel.core.attention.rel_pos import (
    RelPos,
    offset_rows,
    pool_rows,
    position_terms,
    resize_table,
)


def tensors(batch, heads, grid, dim, dtype=torch.float64):
    torch.manual_seed(0)
    tokens = grid[0] * grid[1]
    qkv = [torch.randn(batch, heads, tokens, dim, dtype=dtype) for _ in range(3)]
    tables = [torch.randn(2 * side - 1, dim, dtype=dtype) for side in grid]
    return qkv, tables


def slow_attention(q, k, v, scale, grid, table_h, table_w):
    """One query and one key at a time, straight from the definition."""
    height, width = grid
    logits = torch.empty(*q.shape[:3], k.shape[2], dtype=q.dtype)
    for i in range(q.shape[2]):
        for j in range(k.shape[2]):
            of_h = table_h[i // width - j // width + height - 1]
            of_w = table_w[i % width - j % width + width - 1]
            query = q[:, :, i]
            logits[:, :, i, j] = scale * (query * k[:, :, j]).sum(-1) + query @ (of_h + of_w)
    return logits.softmax(-1) @ v


@pytest.mark.parametrize("budget", [2**20, 100, 40, 1])
@pytest.mark.parametrize("grid", [(4, 4), (3, 5)])
def test_blocks_equal_the_definition_and_its_gradients(monkeypatch, budget, grid):
    monkeypatch.setattr(module, "CPU_BLOCK_LOGITS", budget)
    qkv, tables = tensors(2, 3, grid, 8)
    leaves = [t.requires_grad_() for t in (*qkv, *tables)]

    def ours():
        rows = [offset_rows(table, side) for table, side in zip(tables, grid)]
        return dense_attention(*qkv, 0.3, RelPos(*rows))

    expected = slow_attention(*qkv, 0.3, grid, *tables)
    torch.testing.assert_close(ours(), expected)
    direction = torch.randn_like(expected)
    for ours_grad, grad in zip(
        torch.autograd.grad((ours() * direction).sum(), leaves),
        torch.autograd.grad((expected * direction).sum(), leaves),
    ):
        torch.testing.assert_close(ours_grad, grad)


def test_terms_at_some_keys_are_columns_of_the_bias():
    (q, _, _), tables = tensors(2, 3, (4, 6), 8)
    terms = position_terms(q, offset_rows(tables[0], 4), offset_rows(tables[1], 6))
    rows, columns = torch.tensor([0, 3, 3]), torch.tensor([5, 0, 2])
    assert torch.equal(terms.at(rows, columns), terms.spread()[..., rows * 6 + columns])


@pytest.mark.parametrize("grid", [(4, 6), (5, 3)])
def test_pooled_keys_take_the_mean_of_their_positions_bias(grid):
    (q, k, _), tables = tensors(1, 2, grid, 8)
    dense = position_terms(q, *(offset_rows(t, side) for t, side in zip(tables, grid)))
    pooled = position_terms(
        q, *(pool_rows(offset_rows(t, side), 2) for t, side in zip(tables, grid))
    )
    cells = pooled_grid(grid, 2)
    bias = dense.spread().unflatten(-1, grid)
    for row in range(cells[0]):
        for column in range(cells[1]):
            square = bias[..., 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            torch.testing.assert_close(
                pooled.spread()[..., row * cells[1] + column], square.mean((-2, -1))
            )
            of_keys = k.unflatten(2, grid)[
                :, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2
            ].mean((2, 3))
            torch.testing.assert_close(
                pool_grid(k, grid, 2)[:, :, row * cells[1] + column], of_keys
            )


def test_without_positions_it_is_fused_attention():
    (q, k, v), _ = tensors(2, 3, (4, 4), 8)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=0.2)
    assert torch.equal(dense_attention(q, k, v, 0.2), expected)


def test_half_precision_follows_single():
    qkv, tables = tensors(1, 2, (8, 8), 16, torch.float32)
    rows = [offset_rows(table, 8) for table in tables]
    expected = dense_attention(*qkv, 0.25, RelPos(*rows))
    q, k, v = (t.bfloat16() for t in qkv)
    out = dense_attention(q, k, v, 0.25, RelPos(*rows))
    assert out.dtype == torch.bfloat16
    assert (out.float() - expected).abs().mean() < 0.02 * expected.abs().mean()


def test_tables_are_interpolated_linearly():
    table = torch.randn(7, 4)
    assert resize_table(table, 4) is table
    longer = resize_table(table, 7)
    expected = torch.nn.functional.interpolate(table.t()[None], 13, mode="linear")[0].t()
    assert torch.equal(longer, expected)


@pytest.mark.parametrize("budget", [2**20, 64])
def test_a_bias_of_keys(monkeypatch, budget):
    monkeypatch.setattr(module, "CPU_BLOCK_LOGITS", budget)
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 3, 7, 16), torch.randn(2, 3, 9, 16), torch.randn(2, 3, 9, 16)
    bias = torch.randn(2, 9)
    bias[1, 4] = float("-inf")  # a place that holds no token
    logits = 0.3 * q @ k.transpose(2, 3) + bias[:, None, None]
    out, lse = module.dense_attention_with_lse(q, k, v, 0.3, key_bias=bias)
    assert torch.allclose(out, logits.softmax(-1) @ v, atol=1e-6)
    assert torch.allclose(lse, logits.logsumexp(-1), atol=1e-6)
    assert torch.allclose(module.dense_attention(q, k, v, 0.3, key_bias=bias), out, atol=1e-6)
