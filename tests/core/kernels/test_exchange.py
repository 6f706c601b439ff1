"""The exchange of keys by the compiled kernel: threads, refusals, counts."""

from __future__ import annotations

import pytest
import torch

from mmvitaccel.core.kernels.exchange import exchange_keys
from mmvitaccel.core.macs.counter import MacsCounter

HEADS, SCALE = 2, 0.3

pytestmark = pytest.mark.usefixtures("kernel")


def made(grid, key_grid, dim, num_keys, num_rows, rel_pos):
    """Arguments of an exchange."""
    torch.manual_seed(0)
    (height, width), (key_height, key_width) = grid, key_grid
    rows = torch.randperm(height * width)[:num_rows]
    place = torch.randperm(key_height * key_width)[:num_keys]
    q = torch.randn(HEADS, height * width, dim) / dim**0.5
    old_k, old_v, new_k, new_v = torch.randn(4, HEADS, num_keys, dim)
    sums = [torch.randn(HEADS, height * width, *rest) for rest in ((), (), (dim,))]
    positions = (None, None, None)
    if rel_pos:
        tables = (torch.randn(height, key_height, dim), torch.randn(width, key_width, dim))
        positions = (*(0.3 * t for t in tables), place)
    return q, *sums, rows, old_k, new_k, old_v, new_v, SCALE, *positions


def test_any_number_of_threads_gives_the_same_bits():
    results = []
    before = torch.get_num_threads()
    for threads in (1, 2, 5):
        given = made((9, 90), (9, 90), 32, 40, 700, True)
        torch.set_num_threads(threads)
        exchange_keys(*given)
        results.append(given[3])
    torch.set_num_threads(before)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_what_is_not_a_number_stays_so():
    given = made((6, 8), (6, 8), 16, 4, 40, False)
    given[0][0, given[4][3]] = float("nan")
    exchange_keys(*given)
    spoilt = given[3].isnan().any(-1)
    assert spoilt[0, given[4][3]] and spoilt.sum() == 1


def test_multiply_adds_are_counted():
    given = made((6, 8), (3, 4), 64, 12, 10, True)
    counter = MacsCounter()
    with counter:
        exchange_keys(*given)
    report = counter.report()
    assert report.total == HEADS * 10 * (4 * 12 * 64 + (3 + 4) * 64)
    assert not report.uncounted


def test_sums_must_be_contiguous():
    given = list(made((6, 8), (6, 8), 16, 4, 40, False))
    given[3] = given[3].transpose(0, 1).contiguous().transpose(0, 1)
    with pytest.raises(ValueError, match="numerator must be contiguous"):
        exchange_keys(*given)
