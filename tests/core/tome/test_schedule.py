"""Schedules of r."""

from __future__ import annotations

import pytest

from mmvitaccel.core.tome.schedule import make_schedule, tokens_to_merge


@pytest.mark.parametrize(
    ("r", "blocks", "expected"),
    [
        (8, 3, (8, 8, 8)),
        (0, 2, (0, 0)),
        (0.25, 2, (0.25, 0.25)),
        ([1, 2, 3], 3, (1, 2, 3)),
        ([4, 0.5], 2, (4, 0.5)),
        ((8, 0), 4, (8, 8, 8, 8)),
        ((8, -1), 5, (16, 12, 8, 4, 0)),
        ((8, 1.0), 5, (0, 4, 8, 12, 16)),
        (dict(r=6, inflection=-0.5), 3, (9, 6, 3)),
        ((8, -1), 1, (8,)),
        ((3, 1), 2, (0, 6)),
    ],
)
def test_one_entry_per_block(r, blocks, expected):
    assert make_schedule(r, blocks) == expected


@pytest.mark.parametrize("inflection", [-1, -0.4, 0, 0.7, 1])
@pytest.mark.parametrize("blocks", [2, 7, 12, 24])
def test_an_inflection_keeps_the_total_and_is_monotone(blocks, inflection):
    entries = make_schedule((13, inflection), blocks)
    assert abs(sum(entries) - 13 * blocks) <= 1
    assert list(entries) == sorted(entries, reverse=inflection < 0)


@pytest.mark.parametrize(
    ("r", "error", "message"),
    [
        (-3, ValueError, "r=-3 is negative"),
        ([8, -1, 8, 8], ValueError, "r=-1 is negative"),
        ([8, 8], ValueError, "has 2 entries but the model has 4 blocks"),
        ((8, 8, 8), ValueError, "has 3 entries but the model has 4 blocks"),
        (8.0, ValueError, "r=8.0 is a float.*write r=8 "),
        (float("nan"), ValueError, "r=nan is negative or not a number"),
        (float("inf"), ValueError, "r=inf is a float"),
        ((8, 2), ValueError, "inflection=2 must be within"),
        ((0.5, 1), TypeError, "r=0.5 with an inflection must be an int"),
        (dict(r=8), ValueError, "must have exactly the keys"),
        ("8", TypeError, "r='8' is a str"),
        (True, TypeError, "r=True is a bool"),
        (None, TypeError, "r=None is a NoneType"),
    ],
)
def test_what_makes_no_schedule_is_named(r, error, message):
    with pytest.raises(error, match=message):
        make_schedule(r, 4)


@pytest.mark.parametrize(
    ("entry", "tokens", "prefix", "expected"),
    [(8, 197, 1, 8), (200, 197, 1, 98), (0.25, 197, 1, 49), (0.9, 196, 0, 98), (5, 1, 1, 0)],
)
def test_entries_are_capped_at_what_can_merge(entry, tokens, prefix, expected):
    assert tokens_to_merge(entry, tokens, prefix) == expected
