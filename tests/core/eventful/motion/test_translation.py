"""Cameras that pan, shake and stand still, and what is no pan."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmvitaccel import Translation
from mmvitaccel.testing import stills

SIDE, ROOM = 160, 160


def still(seed=0):
    return stills.still(SIDE + 2 * ROOM, seed)


def shown(whole, place):
    """A frame at any place, also between pixels."""
    y, x = (ROOM + torch.arange(SIDE) + pixels for pixels in place)
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)[None]
    grid = (2 * grid + 1) / whole.shape[-1] - 1
    return nn.functional.grid_sample(whole, grid, align_corners=False)


def followed(pictures, motion=None):
    motion = motion or Translation()
    first, *later = pictures
    track = motion.start(first)
    return [motion.follow(track, picture) for picture in later]


@pytest.mark.parametrize("step", [(3, 0), (0, -8), (16, 16), (-2, 5)])
def test_a_pan_of_whole_pixels_is_followed_exactly(step):
    whole = still()
    count = 1 + min(ROOM // max(map(abs, step)), 40)
    places = [(t * step[0], t * step[1]) for t in range(count)]
    found = followed([shown(whole, place) for place in places])
    assert [moved.place for moved in found] == places[1:]
    assert all(moved.fits for moved in found)


def test_half_pixels_do_not_add_up():
    whole, places = still(), [(0.5 * t, -0.5 * t) for t in range(120)]
    found = followed([shown(whole, place) for place in places])
    off = [abs(m.place[0] - p[0]) + abs(m.place[1] - p[1]) for m, p in zip(found, places[1:])]
    assert max(off) <= 3


def test_a_fixed_camera_stays_while_half_of_the_picture_moves():
    torch.manual_seed(0)
    background, thing = shown(still(), (0, 0)), still(1)
    pictures = []
    for t in range(30):
        picture = background + 0.05 * torch.randn_like(background)
        picture[..., 40:150, 20:130] = shown(thing, (t, 2 * t))[..., 40:150, 20:130]
        pictures.append(picture)
    assert {moved.place for moved in followed(pictures)} == {(0, 0)}


def test_another_scene_stays_where_it_was():
    a, b = still(), still(1)
    found = followed([shown(a, (0, 0)), shown(a, (0, 4)), shown(b, (9, 9)), shown(b, (12, 9))])
    assert [moved.place for moved in found] == [(0, 4), (0, 4), (3, 4)]
    assert [moved.fits for moved in found] == [True, False, True]


def test_what_is_not_finite_does_not_fit():
    a = still()
    broken = torch.full_like(shown(a, (0, 0)), torch.nan)
    found = followed([shown(a, (0, 0)), broken, shown(a, (2, 0)), shown(a, (4, 0))])
    assert [moved.fits for moved in found] == [False, False, True]
    assert found[-1].place == (2, 0)


@pytest.mark.parametrize("name", ["smallest_fit", "reach"])
def test_refusals(name):
    with pytest.raises(ValueError, match=rf"Translation: {name}=1.5 must be above 0 and below 1"):
        Translation(**{name: 1.5})
    with pytest.raises(ValueError, match=r"Translation: maps='pixels' must be one of frame, view"):
        Translation(maps="pixels")
