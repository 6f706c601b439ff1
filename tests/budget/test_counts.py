"""Multiply-adds between the levels that were counted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmvitaccel.budget.counts import Counts


def counts(origin=0, **counted):
    made = Counts(origin)
    for level, macs in counted.items():
        made.note(int(level[1:]), macs)
    return made


def test_what_was_counted_is_known_exactly():
    made = counts(_10=7.0, _20=9.0)
    assert (made.predict(10), made.predict(20)) == (7.0, 9.0)
    assert 10 in made and 15 not in made


def test_between_and_beyond_lies_the_line_through_the_neighbours():
    made = counts(_10=100.0, _20=200.0, _40=300.0)
    assert [made.predict(level) for level in (5, 15, 30, 50)] == [50.0, 150.0, 250.0, 350.0]


def test_one_count_is_taken_as_proportional():
    assert counts(_10=100.0).predict(30) == 300.0
    assert counts(origin=-5, _5=100.0).predict(15) == 200.0
    assert counts().predict(3) is None


@given(
    st.lists(st.integers(1, 500), min_size=2, max_size=6, unique=True),
    st.floats(0, 2000),
)
def test_aim_is_the_highest_level_that_fits(levels, macs):
    made = Counts(0)
    for level in levels:
        made.note(level, 3.0 * level + 40)
    found = made.aim(macs, 1, 500)
    assert found == 1 or made.predict(found) <= macs + 1e-6
    assert found == 500 or made.predict(found + 1) > macs - 1e-6
    assert made.predict(found) == pytest.approx(3 * found + 40)
