"""Positions of the view and the frame in a scene."""

from __future__ import annotations

from mmvitaccel.core.eventful.motion.place import Place

BEFORE = Place(3, (10, 12), (2, -1), (35, -20), 16)
NOW = BEFORE._replace(first=(1, 4), offset=(10, 70))


def test_corners_are_in_pixels():
    assert BEFORE.corner == (32, -16) and BEFORE.beyond == (3, -4)
    assert NOW.corner == (16, 64) and NOW.beyond == (-6, 6)


def test_a_step_is_in_tokens():
    assert NOW.step_from(BEFORE) == (-1, 5)
    assert BEFORE.step_from(NOW) == (1, -5)


def test_only_the_origin_is_at_rest():
    origin = NOW._replace(first=(0, 0), offset=(0, 0))
    assert origin.at_rest
    assert not origin._replace(first=(0, 1)).at_rest
    assert not origin._replace(offset=(0, 1)).at_rest
