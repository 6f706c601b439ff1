"""A ring against a dict of what lies where."""

from __future__ import annotations

import pytest
import torch

from mmvitaccel.core.eventful.motion.ring import Ring

CPU = torch.device("cpu")
PLACES = [(0, 0), (1, 0), (0, -1), (3, 5), (-4, 9), (-17, 30)]


def cells_in_slots(ring):
    """The scene's cell in each slot, by the definition."""
    (height, width), (top, left) = ring.size, ring.first
    return {
        (y % height, x % width): (y, x)
        for y in range(top, top + height)
        for x in range(left, left + width)
    }


@pytest.mark.parametrize("first", PLACES)
def test_cells_and_slots(first):
    ring = Ring((4, 7), first)
    expected = cells_in_slots(ring)
    assert len(expected) == 28
    rows, columns = (ring.cells(axis, CPU).tolist() for axis in (0, 1))
    assert {(r, c): (y, x) for r, y in enumerate(rows) for c, x in enumerate(columns)} == expected
    for axis, cells in enumerate((rows, columns)):
        assert ring.slots(axis, torch.tensor(cells)).tolist() == list(range(ring.size[axis]))


@pytest.mark.parametrize("first", PLACES)
@pytest.mark.parametrize("before", PLACES)
def test_what_entered(first, before):
    now, then = Ring((4, 7), first), Ring((4, 7), before)
    old, new = cells_in_slots(then), cells_in_slots(now)
    entered = now.entered(then, CPU)
    assert {tuple(place) for place in entered.nonzero().tolist()} == {
        slot for slot in new if new[slot] != old[slot]
    }
    assert now.count_entered(then) == int(entered.sum())
    assert set(now.entered_slots(then, CPU).tolist()) == {
        r * 7 + c for r, c in entered.nonzero().tolist()
    }
    assert now.count_entered(now) == 0


@pytest.mark.parametrize("first", PLACES)
@pytest.mark.parametrize("off", [-6, -2, 0, 1, 5])
def test_pieces(first, off):
    ring = Ring((4, 7), first)
    for axis in (0, 1):
        start, side = ring.first[axis] + off, ring.size[axis]
        seen = {}
        for slots, frame in ring.pieces(axis, start):
            assert slots.stop - slots.start == frame.stop - frame.start > 0
            assert slots.start >= 0 and slots.stop <= side and frame.stop <= side
            for slot, own in zip(range(side)[slots], range(side)[frame]):
                assert slot not in seen
                seen[slot] = start + own
        cells = dict(enumerate(ring.cells(axis, CPU).tolist()))
        assert seen == {s: c for s, c in cells.items() if start <= c < start + side}


def test_smaller_cells():
    ring = Ring((4, 7), (-1, 2)).times(16)
    assert (ring.size, ring.first, ring.at_rest) == ((64, 112), (-16, 32), False)
    assert Ring((4, 7)).at_rest
