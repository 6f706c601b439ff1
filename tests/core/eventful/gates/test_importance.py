"""Where objects were, on the grid of tokens."""

from __future__ import annotations

import pytest
import torch

from mmvitaccel import LastObjects, ReceivedAttention, RunningObjects
from mmvitaccel.core.eventful.gates.importance import Matters, Objects

GRID = (4, 6)


def boxes(*rows):
    return Objects(boxes=torch.tensor(rows).reshape(-1, 4))


def tokens_of(heat):
    return {tuple(place) for place in heat.nonzero().tolist()}


def test_a_box_covers_the_tokens_that_it_reaches_into():
    # of a grid of 4 x 6: down to a quarter is one row, from a third is the third column
    found = boxes((1 / 3, 0.0, 0.5, 0.25), (0.9, 0.8, 1.0, 1.0)).on_grid(GRID, 0)
    assert found.shape == GRID
    assert tokens_of(found) == {(0, 2), (3, 5)}
    assert tokens_of(boxes((0.3, 0.2, 0.55, 0.3)).on_grid(GRID, 0)) == {
        (0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3),
    }  # fmt: skip


def test_growing_reaches_every_neighbour_and_stops_at_the_border():
    grown = boxes((0.9, 0.8, 1.0, 1.0)).on_grid(GRID, 1)
    assert tokens_of(grown) == {(2, 4), (2, 5), (3, 4), (3, 5)}


def test_no_boxes_and_boxes_outside_cover_nothing():
    assert not boxes().on_grid(GRID, 1).any()
    assert not boxes((-1.0, -1.0, -1.0, -1.0), (1.2, 0.1, 1.4, 0.3)).on_grid(GRID, 0).any()


def test_a_map_is_averaged_over_tokens_and_its_largest_is_one():
    heat = torch.rand(8, 12)
    found = Objects(heat=heat).on_grid(GRID, 0)
    expected = heat.unflatten(0, (4, 2)).unflatten(2, (6, 2)).mean((1, 3))
    assert torch.allclose(found, expected / expected.max())
    assert not Objects(heat=torch.zeros(8, 12)).on_grid(GRID, 1).any()


def test_last_objects():
    matters = Matters()
    assert LastObjects().of(matters, GRID) is None
    matters.objects = boxes((0.0, 0.0, 0.1, 0.1))
    assert tokens_of(LastObjects(grow=0).of(matters, GRID)) == {(0, 0)}
    assert tokens_of(LastObjects().of(matters, GRID)) == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_running_objects_count_each_telling_once():
    matters, running = Matters(), RunningObjects(keep=0.75)
    assert running.of(matters, GRID) is None
    first, second = boxes((0.0, 0.0, 0.1, 0.1)), boxes((0.9, 0.9, 1.0, 1.0))
    matters.objects = first
    for _ in range(3):  # frames without news
        assert running.of(matters, GRID)[0, 0] == 1
    matters.objects = second
    found = running.of(matters, GRID)
    assert (found[0, 0], found[3, 5]) == (0.75, 0.25)
    matters.objects = second._replace()
    found = running.of(matters, GRID)
    assert found[3, 5].item() == pytest.approx(0.75 * 0.25 + 0.25)
    assert RunningObjects(keep=0.5).of(matters, GRID)[0, 0] == 0  # keeps its own mean


def test_what_makes_no_sense_is_refused():
    for value in (-1, 1.5, True):
        with pytest.raises(ValueError, match=rf"LastObjects: grow={value!r} must be a whole"):
            LastObjects(value)
    for value in (-0.1, 1, float("nan")):
        with pytest.raises(ValueError, match=rf"RunningObjects: keep={value!r} must be at least"):
            RunningObjects(value)
    with pytest.raises(ValueError, match="neither of boxes and heat are given"):
        Objects().checked()
    with pytest.raises(ValueError, match="both of boxes and heat are given"):
        Objects(torch.zeros(1, 4), torch.zeros(2, 2)).checked()
    with pytest.raises(ValueError, match=r"boxes are \(4,\), not \(n, 4\)"):
        Objects(boxes=torch.zeros(4)).checked()
    with pytest.raises(ValueError, match=r"heat is \(1, 2, 2\), not \(h, w\)"):
        Objects(heat=torch.zeros(1, 2, 2)).checked()


def test_received_attention_is_that_of_its_block_over_the_largest():
    matters, received = Matters(), ReceivedAttention(block=2)
    assert received.of(matters, GRID) is None
    matters.attended[1] = torch.ones(24)
    assert received.of(matters, GRID) is None
    matters.attended[2] = torch.arange(24.0)
    assert torch.equal(received.of(matters, GRID), torch.arange(24.0).view(4, 6) / 23)
    for value in (0.5, True):
        with pytest.raises(ValueError, match=rf"ReceivedAttention: block={value!r} must be a who"):
            ReceivedAttention(value)
