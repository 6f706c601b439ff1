"""Scenes of scripted cameras, against frames that are put down on a plane."""

from __future__ import annotations

import pytest
import torch

from mmvitaccel.core.eventful.motion.scene import Scene
from mmvitaccel.core.eventful.motion.translation import Moved
from mmvitaccel.testing.aligned import NaiveScene, on_frame

PATCH, GRID = 4, (5, 6)
SIZE = (GRID[0] * PATCH, GRID[1] * PATCH)
ROOM = 60


class Scripted:
    """A camera whose places are known beforehand."""

    def __init__(self, places, reach=0.99, fits=None, maps="frame"):
        self.places, self.reach, self.maps = places, reach, maps
        self.fits = fits or [True] * len(places)

    def start(self, picture):
        return [0]

    def follow(self, track, picture):
        track[0] += 1
        return Moved(self.places[track[0]], self.fits[track[0]])


def plane():
    return torch.randn(
        1, 3, 2 * ROOM + 40, 2 * ROOM + 40, generator=torch.Generator().manual_seed(0)
    )


def shown(whole, place):
    y, x = (ROOM + pixels for pixels in place)
    return whole[..., y : y + SIZE[0], x : x + SIZE[1]].clone()


def in_view(scene, picture):
    """What lies slot by slot, in the order of the view."""
    ring = scene.ring.times(PATCH)
    rows, columns = (
        ring.slots(axis, torch.arange(first, first + side))
        for axis, (first, side) in enumerate(zip(ring.first, ring.size))
    )
    return picture[..., rows, :][..., columns]


WALKS = {
    "down": [(t, 0) for t in range(0, 20, 3)],
    "up and left": [(-2 * t, -t) for t in range(9)],
    "by patches": [(4 * t, -4 * t) for t in range(5)],
    "there and back": [(0, 0), (5, 5), (9, 11), (5, 5), (0, 0), (-3, 2), (2, -3)],
    "jumps": [(0, 0), (13, -9), (-6, 14), (0, 3)],
}


@pytest.mark.parametrize("places", WALKS.values(), ids=WALKS)
def test_views(places):
    whole = plane()
    scene, naive = None, NaiveScene(PATCH, ROOM)
    for place in places:
        frame = shown(whole, place)
        expected = naive.see(frame, place)
        if scene is None:
            scene = Scene(Scripted(places), frame, PATCH)
            seen = frame
        else:
            seen = scene.follow(frame.clone())
        assert scene.ring.first == naive.first and scene.offset == place
        assert all(abs(o - PATCH * f) < PATCH for o, f in zip(scene.offset, scene.ring.first))
        assert torch.equal(in_view(scene, seen), expected)


@pytest.mark.parametrize("places", WALKS.values(), ids=WALKS)
def test_tokens_come_back_on_the_frame(places):
    whole, torch_grid = plane(), torch.arange(1, 31).view(GRID)
    scene = Scene(Scripted(places), shown(whole, places[0]), PATCH)
    for place in places[1:]:
        scene.follow(shown(whole, place))
        tokens = torch.randn(1, 2 + 30, 7)
        rows, columns = (
            scene.ring.slots(axis, torch.arange(side) + scene.ring.first[axis])
            for axis, side in enumerate(GRID)
        )
        view = tokens[:, 2:].unflatten(1, GRID)[:, rows][:, :, columns].flatten(1, 2)
        found = scene.given(tokens)
        assert torch.equal(found[:, :2], tokens[:, :2])
        expected = on_frame(view, GRID, scene.ring.first, scene.offset, PATCH)
        torch.testing.assert_close(found[:, 2:], expected, rtol=1e-4, atol=1e-5)
        order = scene.order(tokens.device)
        if order is not None:  # the nearest token has the largest share
            numbered = torch_grid[rows][:, columns].flatten()
            near = torch.zeros(30, 30).scatter_(1, order[:, None], 1.0)
            spread = on_frame(
                torch.eye(30)[None][:, numbered - 1], GRID, scene.ring.first, scene.offset, PATCH
            )[0]
            assert (spread.amax(1) - (spread * near).sum(1)).abs().max() < 1e-5


def test_positions_stay_with_the_scene():
    whole, places = plane(), [(0, 0), (9, -4), (9, -4)]
    scene = Scene(Scripted(places), shown(whole, (0, 0)), PATCH)
    positions = torch.randn(1, 30, 7)
    x = torch.randn(1, 31, 7)
    assert scene.corrected(x, lambda: positions) is x
    scene.follow(shown(whole, places[1]))
    assert scene.ring.first == (2, -1)
    bare = torch.cat((x[:, :1], x[:, 1:] - positions), 1)
    found = scene.corrected(x, lambda: positions) - bare
    table = positions.unflatten(1, GRID)
    for slot_y in range(5):
        for slot_x in range(6):
            y = slot_y if slot_y >= 2 else 4  # 5 and 6 came into view, beyond the table
            x_ = slot_x if slot_x < 5 else 0  # as did -1
            torch.testing.assert_close(found[0, 1 + slot_y * 6 + slot_x], table[0, y, x_])
    assert found[0, 0].abs().max() == 0
    # kept tokens have the very same bits
    kept = ~scene.entered(x.device)
    assert torch.equal(scene.corrected(x, lambda: positions)[0, 1:][kept], x[0, 1:][kept])
    scene.follow(shown(whole, places[2]))
    assert scene.entered(x.device) is None


def test_a_frame_that_does_not_fit_stays_and_is_not_mixed_with_what_was_seen():
    whole, places = plane(), [(0, 0), (2, 0), (2, 0)]
    scene = Scene(Scripted(places, fits=[True, True, False]), shown(whole, (0, 0)), PATCH)
    scene.follow(shown(whole, (2, 0)))
    other = torch.full_like(shown(whole, (0, 0)), 5.0)
    assert torch.equal(scene.follow(other), other)
    assert not scene.fits and scene.offset == (2, 0) and scene.moved == (0, 0)


def test_beyond_its_reach_all_begins_anew():
    whole, places = plane(), [(0, 0), (4, 0), (8, 0)]
    scene = Scene(Scripted(places, reach=0.3), shown(whole, (0, 0)), PATCH)
    scene.follow(shown(whole, (4, 0)))
    assert not scene.anew and scene.ring.first == (1, 0)
    frame = shown(whole, (8, 0))
    assert torch.equal(scene.follow(frame), frame)
    assert scene.anew and scene.ring.at_rest and scene.offset == (0, 0)
    assert scene.moved == (4, 0) and scene.entered(frame.device) is None


@pytest.mark.parametrize("places", WALKS.values(), ids=WALKS)
def test_tokens_come_back_on_the_view_as_they_are(places):
    whole = plane()
    scene = Scene(Scripted(places, maps="view"), shown(whole, places[0]), PATCH)
    for place in places[1:]:
        scene.follow(shown(whole, place))
        tokens = torch.randn(1, 2 + 30, 7)
        rows, columns = (
            scene.ring.slots(axis, torch.arange(side) + scene.ring.first[axis])
            for axis, side in enumerate(GRID)
        )
        view = tokens[:, 2:].unflatten(1, GRID)[:, rows][:, :, columns].flatten(1, 2)
        assert torch.equal(scene.given(tokens)[:, 2:], view)
        first = scene.ring.first
        assert scene.beyond == tuple(p - PATCH * f for p, f in zip(place, first))


def test_frames_in_which_the_view_stays_save_for_those_in_which_it_moves():
    """Over all frames, none has more tokens than the budget."""
    picture = torch.zeros(1, 3, 16, 512)
    scene = Scene(Scripted([(0, 3 * t) for t in range(39)]), picture, 16)
    budgets, moves = [], []
    for _ in range(38):
        scene.follow(picture)
        moves.append(scene.ring != scene.before)
        budgets.append(scene.budget(10, 30))
    assert budgets[:6] == [8, 8, 8, 8, 8, 20] and moves[:6] == [False] * 5 + [True]
    assert sum(budgets) + scene.saved == 10 * 38 and sum(moves) == 7


def test_a_whole_budget_is_saved_at_most_and_none_of_a_camera_that_stands_still():
    places = [(0, t) for t in range(12)] + [(0, 11)] * 4 + [(0, 17)]
    picture, budgets = torch.zeros(1, 3, 64, 64), []
    scene = Scene(Scripted(places), picture, 16)
    for _ in places[1:]:
        scene.follow(picture)
        budgets.append(scene.budget(10, 16))
    assert budgets == [8] * 5 + [10] * 6 + [10] * 4 + [16]  # of which there are no more
