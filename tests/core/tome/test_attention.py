"""Attention of merged tokens against its definition, by the kernel and by torch's operators."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from mmvitaccel.core.kernels import operators
from mmvitaccel.core.macs.counter import MacsCounter
from mmvitaccel.core.tome import attention as merged_attention

SCALE = 0.3
attend = merged_attention.merged_attention


def made(batch, heads, grid, num_keys, dim, dtype=torch.float32):
    """Merged queries, keys, values and terms, and owners of which each token has some."""
    torch.manual_seed(0)
    # (B, K, heads, D) -> (B, heads, K, D), as views
    q, k, v = torch.randn(3, batch, num_keys, heads, dim, dtype=dtype).transpose(2, 3)
    terms = torch.randn(batch, num_keys, heads, sum(grid), dtype=dtype).transpose(1, 2)
    num_tokens = grid[0] * grid[1]
    owner = torch.randint(num_keys, (batch, num_tokens))
    for of_one in owner:
        of_one[torch.randperm(num_tokens)[:num_keys]] = torch.arange(num_keys)
    return q, k, v, terms, owner


def log_size_of(owner, num_keys):
    return F.one_hot(owner, num_keys).sum(1).float().log()[:, None, None]


def defined(q, k, v, terms, owner, grid, log_size):
    """From the pairs: each key's terms are the mean over its tokens, one after the other."""
    logits = SCALE * q.double() @ k.double().transpose(-1, -2)
    for b, of_one in enumerate(owner):
        for key in range(k.shape[2]):
            tokens = (of_one == key).nonzero()[:, 0]
            by_row = terms[b][..., tokens // grid[1]].double()
            by_column = terms[b][..., grid[0] + tokens % grid[1]].double()
            logits[b, :, :, key] += (by_row + by_column).mean(-1)
    if log_size is not None:
        logits = logits + log_size.double()
    return logits.softmax(-1) @ v.double()


CASES = [
    (1, 2, (6, 8), 24, 16),
    (2, 3, (5, 7), 26, 64),
    (3, 1, (14, 14), 98, 32),
    (1, 2, (20, 30), 599, 48),  # more than one chunk of rows and of keys
    (1, 1, (4, 4), 16, 128),
]


@pytest.mark.parametrize("with_size", [False, True])
@pytest.mark.parametrize("way", ["kernel", "torch"])
@pytest.mark.parametrize(("batch", "heads", "grid", "num_keys", "dim"), CASES)
def test_against_its_definition(
    request, monkeypatch, batch, heads, grid, num_keys, dim, way, with_size
):
    if way == "kernel":
        request.getfixturevalue("kernel")
    else:
        monkeypatch.setattr(operators, "kernels", lambda: None)
    q, k, v, terms, owner = made(batch, heads, grid, num_keys, dim)
    log_size = log_size_of(owner, num_keys) if with_size else None
    out = attend(q, k, v, SCALE, terms, owner, grid, log_size)
    expected = defined(q, k, v, terms, owner, grid, log_size)
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize("budget", [700, 4000])
def test_some_heads_and_rows_at_a_time_are_the_same(monkeypatch, budget):
    """39 keys in 2 images: 8 rows of a head at a time, and a whole head."""
    inputs = made(2, 2, (6, 8), 39, 8, torch.float64)
    whole = attend(*inputs[:3], SCALE, *inputs[3:], (6, 8))
    monkeypatch.setattr(merged_attention, "CPU_BLOCK_LOGITS", budget)
    in_blocks = attend(*inputs[:3], SCALE, *inputs[3:], (6, 8))
    torch.testing.assert_close(in_blocks, whole)


@pytest.mark.usefixtures("kernel")
def test_gradients_are_those_without_the_kernel(monkeypatch):
    inputs = made(1, 2, (6, 8), 24, 16)
    for tensor in inputs[:4]:
        tensor.requires_grad_()
    attend(*inputs[:3], SCALE, *inputs[3:], (6, 8)).square().sum().backward()
    with_it = [tensor.grad.clone() for tensor in inputs[:4]]
    monkeypatch.setattr(operators, "kernels", lambda: None)
    for tensor in inputs[:4]:
        tensor.grad = None
    attend(*inputs[:3], SCALE, *inputs[3:], (6, 8)).square().sum().backward()
    for tensor, expected in zip(inputs[:4], with_it):
        assert expected.abs().max() > 0
        torch.testing.assert_close(tensor.grad, expected)


@pytest.mark.usefixtures("kernel")
def test_counts_are_the_same_with_and_without_the_kernel(monkeypatch):
    inputs = made(2, 3, (5, 7), 26, 64)

    def counted():
        with MacsCounter() as counter, torch.no_grad():
            out = attend(*inputs[:3], SCALE, *inputs[3:], (5, 7))
        return counter.report().total, out

    with_it, out = counted()
    monkeypatch.setattr(operators, "kernels", lambda: None)
    without, same = counted()
    assert not torch.equal(out, same)
    assert with_it == without == 2 * 3 * 26 * 26 * (2 * 64 + 5 + 7)
