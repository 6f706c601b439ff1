"""Shifts that most blocks share, known beforehand."""

from __future__ import annotations

import pytest
import torch

from mmvitaccel.core.eventful.motion.blocks import shared_shift
from mmvitaccel.core.eventful.motion.estimate import look_at
from mmvitaccel.testing import stills

SIDE, ROOM = 160, 40


def shown(y, x, seed=0):
    whole = stills.still(SIDE + 2 * ROOM, seed)
    return whole[..., ROOM + y : ROOM + y + SIDE, ROOM + x : ROOM + x + SIDE].clone()


def shared(now, then, by=(0, 0)):
    return shared_shift(look_at(now), look_at(then), by)


MOVED = (shown(4, -2), shown(0, 0))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_shift_of_all_blocks(size):
    """Of large pictures too, which are made small."""
    now, then = (x.repeat_interleave(size, 2).repeat_interleave(size, 3) for x in MOVED)
    down, right, share = shared(now, then, by=(2 * size, -3 * size))
    assert (down, right) == pytest.approx((2 * size, size), abs=0.4 * size)
    assert share > 0.9
    assert shared(now, then, by=(4 * size, -2 * size)) == pytest.approx((0, 0, 1), abs=0.01)


def test_the_share_is_that_of_the_larger_part():
    now, then = shown(0, 5), shown(0, 0)
    now[..., 96:, :] = shown(-4, 0)[..., 96:, :]  # a block in the middle is of both
    down, right, share = shared(now, then)
    assert (down, right) == pytest.approx((0, 5), abs=0.7)
    assert 0.5 < share < 0.7


def test_blocks_without_structure_do_not_count():
    """Two thirds of the pictures are noise alone."""
    torch.manual_seed(0)
    pictures = [0.01 * torch.randn(1, 3, SIDE, SIDE) for _ in range(2)]
    for picture, place in zip(pictures, ((0, 3), (0, 0))):
        picture[..., 104:, :] += shown(*place)[..., 104:, :]
    down, right, share = shared(*pictures)
    assert (down, right) == pytest.approx((0, 3), abs=0.5)
    assert share > 0.6


def test_where_nothing_can_be_told_nothing_is_said():
    flat = torch.zeros(1, 3, SIDE, SIDE)
    assert shared(flat, flat) == (0, 0, 1)
    assert shared(flat[..., :20], flat[..., :20]) == (0, 0, 1)  # smaller than a block
    assert shared(flat + torch.nan, flat).share == 1
