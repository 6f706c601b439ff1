"""Rates, counts and times of containers, valid and invalid."""

from __future__ import annotations

import math

import pytest

from mmvitaccel.video_reader.timing import Clock, known_count, known_duration, known_rate


@pytest.mark.parametrize("fps", [0, -1, 1000, 90000, 1200000, math.inf, math.nan, None])
def test_rates_that_are_none(fps):
    assert known_rate(fps) is None


@pytest.mark.parametrize("fps", [0.2, 12.5, 30000 / 1001, 240, 480])
def test_rates(fps):
    assert known_rate(fps) == fps


def test_counts_and_durations():
    assert [known_count(c) for c in (-2.3e17, -1, 0, math.nan, 9.2e18, None)] == [None] * 6
    assert known_count(24.0) == 24
    assert [known_duration(d) for d in (-1.0, 0.0, 1e12, math.inf, None)] == [None] * 5
    assert known_duration(2.5) == 2.5


def seconds(fps, stamps):
    clock = Clock(fps)
    one_by_one = [clock.seconds(stamp) for stamp in stamps]
    at_once = Clock(fps).all_seconds(stamps).tolist()
    assert at_once == pytest.approx([math.nan if s is None else s for s in one_by_one], nan_ok=True)
    return one_by_one


def test_time_stamps_count_from_the_first_frame():
    assert seconds(25.0, [5.0, 5.04, 5.2]) == pytest.approx([0, 0.04, 0.2])
    assert seconds(None, [5.0, 5.04, 5.2]) == pytest.approx([0, 0.04, 0.2])


def test_time_stamps_that_do_not_grow_give_way_to_the_rate():
    assert seconds(25.0, [0.0, 0.0, 0.0]) == pytest.approx([0, 0.04, 0.08])
    assert seconds(25.0, [3.0, 3.04, 1.0, 1.04]) == pytest.approx([0, 0.04, 0.08, 0.12])


def test_nothing_is_known_of_ticks_without_a_rate():
    assert seconds(None, [0.0, 0.001, 0.002]) == [0.0, None, None]
