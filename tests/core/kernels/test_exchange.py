"""The exchange of keys by the compiled kernel against its definition."""

from __future__ import annotations

import pytest
import torch

from mmvitaccel.core.kernels.compiler import can_run
from mmvitaccel.core.kernels.exchange import exchange_keys
from mmvitaccel.core.macs.counter import MacsCounter

HEADS, SCALE = 2, 0.3
NO_POSITIONS = (None, None, None)

pytestmark = pytest.mark.usefixtures("kernel")


def made(grid, key_grid, dim, num_keys, num_rows, rel_pos):
    """Arguments of an exchange; in double precision what it has to give, and the sums of sizes."""
    torch.manual_seed(0)
    (height, width), (key_height, key_width) = grid, key_grid
    rows = torch.randperm(height * width)[:num_rows]
    place = torch.randperm(key_height * key_width)[:num_keys]
    q = torch.randn(HEADS, height * width, dim) / dim**0.5
    old, new = (tuple(torch.randn(HEADS, num_keys, dim) for _ in range(2)) for _ in range(2))
    sums = [torch.randn(HEADS, height * width, *rest) for rest in ((), (), (dim,))]
    positions, bias = NO_POSITIONS, 0.0
    if rel_pos:
        tables = (torch.randn(height, key_height, dim), torch.randn(width, key_width, dim))
        positions = (*(0.3 * t for t in tables), place)
        y, x = torch.arange(height * width) // width, torch.arange(height * width) % width
        table = positions[0][y][:, place // key_width] + positions[1][x][:, place % key_width]
        bias = torch.einsum("hqd,qkd->hqk", q.double(), table.double())
    shift, denominator, numerator = (t.double() for t in sums)
    sizes = [denominator.abs(), numerator.abs()]
    for sign, (k, v) in ((-1, old), (1, new)):
        logits = SCALE * q.double() @ k.double().transpose(1, 2) + bias
        weights = (logits - shift.unsqueeze(-1)).exp()[:, rows]
        denominator[:, rows] += sign * weights.sum(-1)
        numerator[:, rows] += sign * weights @ v.double()
        sizes[0][:, rows] += weights.sum(-1)
        sizes[1][:, rows] += weights @ v.double().abs()
    return (
        (q, *sums, rows, old[0], new[0], old[1], new[1], SCALE, *positions),
        (denominator, numerator),
        sizes,
    )


@pytest.mark.parametrize("rel_pos", [False, True])
@pytest.mark.parametrize(
    ("grid", "key_grid", "dim", "num_keys", "num_rows"),
    [
        ((6, 8), (6, 8), 16, 1, 47),
        ((6, 8), (3, 4), 64, 12, 8),
        ((5, 70), (5, 70), 32, 33, 317),
        ((3, 500), (3, 500), 48, 64, 1400),
        ((7, 7), (7, 7), 80, 20, 1),
        ((4, 4), (4, 4), 96, 16, 16),
        ((4, 4), (4, 4), 112, 3, 9),
        ((4, 4), (4, 4), 128, 5, 0),
    ],
)
def test_exchange_against_its_definition(grid, key_grid, dim, num_keys, num_rows, rel_pos):
    given, expected, sizes = made(grid, key_grid, dim, num_keys, num_rows, rel_pos)
    assert can_run(given[0])
    exchange_keys(*given)
    for value, wanted, size in zip(given[2:4], expected, sizes):
        assert float(((value - wanted).abs() / size).max()) < 3e-6


def test_any_number_of_threads_gives_the_same_bits():
    results = []
    before = torch.get_num_threads()
    for threads in (1, 2, 5):
        given, *_ = made((9, 90), (9, 90), 32, 40, 700, True)
        torch.set_num_threads(threads)
        exchange_keys(*given)
        results.append(given[3])
    torch.set_num_threads(before)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_exponentials_from_nothing_to_infinity():
    logits = torch.tensor([-1e4, -104.0, -80.0, -1.0, 0.0, 1e-3, 1.0, 50.0, 88.0, 89.0, 1e4])
    q = torch.zeros(1, len(logits), 16)
    q[0, :, 0] = logits
    k, v = torch.zeros(1, 1, 16), torch.zeros(1, 1, 16)
    k[0, 0, 0] = 1.0
    shift = torch.zeros(1, len(logits))
    denominator, numerator = torch.zeros_like(shift), torch.zeros_like(q)
    old = (torch.full_like(k, -1e6), v)
    old[0][0, 0, 1:] = 0.0  # weighs nothing for q > 0, and what it weighs for others is not asked
    rows = torch.arange(4, len(logits))
    exchange_keys(q, shift, denominator, numerator, rows, old[0], k, v, v, 1.0, *NO_POSITIONS)
    expected = logits[4:].exp()
    expected[0] = 0.0  # the old key weighs as much as the new one
    torch.testing.assert_close(denominator[0, 4:], expected, rtol=1e-6, atol=0.0)
    q.neg_()
    denominator.zero_()
    exchange_keys(q, shift, denominator, numerator, rows, -old[0], k, v, v, 1.0, *NO_POSITIONS)
    torch.testing.assert_close(denominator[0, 5:9], (-logits[5:9]).exp(), rtol=1e-6, atol=1e-37)
    assert torch.equal(denominator[0, 9:], torch.exp(-logits[9:]) * (logits[9:] < 88))


def test_what_is_not_a_number_stays_so():
    given, *_ = made((6, 8), (6, 8), 16, 4, 40, False)
    given[0][0, given[4][3]] = float("nan")
    exchange_keys(*given)
    spoilt = given[3].isnan().any(-1)
    assert spoilt[0, given[4][3]] and spoilt.sum() == 1


def test_multiply_adds_are_counted():
    given, *_ = made((6, 8), (3, 4), 64, 12, 10, True)
    counter = MacsCounter()
    with counter:
        exchange_keys(*given)
    report = counter.report()
    assert report.total == HEADS * 10 * (4 * 12 * 64 + (3 + 4) * 64)
    assert not report.uncounted


def test_sums_must_be_contiguous():
    given = list(made((6, 8), (6, 8), 16, 4, 40, False)[0])
    given[3] = given[3].transpose(0, 1).contiguous().transpose(0, 1)
    with pytest.raises(ValueError, match="numerator must be contiguous"):
        exchange_keys(*given)
