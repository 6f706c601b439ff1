"""Cameras that pan, shake and stand still, and what is no pan."""

from __future__ import annotations

import math

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


def seen(whole, zoom=1.0, degrees=0.0, place=(0, 0)):
    """A frame of a camera that zooms and turns about its middle."""
    turn = math.radians(degrees)
    y, x = torch.meshgrid(*(torch.arange(SIDE) - (SIDE - 1) / 2,) * 2, indexing="ij")
    down = (y * math.cos(turn) - x * math.sin(turn)) / zoom + place[0]
    right = (y * math.sin(turn) + x * math.cos(turn)) / zoom + place[1]
    grid = torch.stack((right, down), -1)[None] / (whole.shape[-1] / 2)
    return nn.functional.grid_sample(whole, grid, align_corners=False)


def ground(whole, by):
    """A frame of a plane that recedes to a horizon: its lower end moves by most."""
    y, x = torch.meshgrid(*(torch.arange(SIDE) - (SIDE - 1) / 2,) * 2, indexing="ij")
    x = x + by * (y / SIDE + 0.5)
    grid = torch.stack((x, y), -1)[None] / (whole.shape[-1] / 2)
    return nn.functional.grid_sample(whole, grid, align_corners=False)


UNLIKE_SHIFTS = {
    "zoom": lambda t: seen(still(), zoom=1.01**t),
    "zoom out": lambda t: seen(still(), zoom=0.98**t),
    "fast zoom": lambda t: seen(still(), zoom=1.05**t),
    "turn": lambda t: seen(still(), degrees=0.6 * t),
    "fast turn": lambda t: seen(still(), degrees=3 * t),
    "parallax": lambda t: ground(still(), 12 * t),
}


@pytest.mark.parametrize("picture", UNLIKE_SHIFTS.values(), ids=UNLIKE_SHIFTS)
def test_what_no_shift_explains_does_not_fit_and_stays(picture):
    found = followed([picture(t) for t in range(5)])
    assert found == [((0, 0), False)] * 4


def shaken(t):
    return (4 * math.sin(0.9 * t) + math.sin(2.3 * t + 1), 3 * math.sin(1.3 * t))


SHIFTS = {
    "shake": lambda t: shown(still(), shaken(t)),
    "half a pixel": lambda t: shown(still(), (0.5 * t, 0.5 * t)),
    "noise": lambda t: noisy(shown(still(), (0, 0)), t),
    "pan in noise": lambda t: noisy(shown(still(), (3.5 * t, -2.0 * t)), t),
    "flicker": lambda t: shown(still(), (0, 2 * t)) * (0.8 if t % 2 else 1.0),
    "very slow zoom": lambda t: seen(still(), zoom=1.001**t),
    "no structure": lambda t: torch.full((1, 3, SIDE, SIDE), 0.1 * t) + torch.arange(SIDE) / SIDE,
}


def noisy(picture, seed):
    """With noise that is a quarter of its contrast."""
    noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(seed))
    return picture + 0.25 * picture.std() * noise


@pytest.mark.parametrize("picture", SHIFTS.values(), ids=SHIFTS)
def test_shifts_noise_and_flicker_fit(picture):
    assert all(moved.fits for moved in followed([picture(t) for t in range(8)]))


@pytest.mark.parametrize("step", [(0, 4), (-3, 5), (9, 0)])
def test_the_background_is_followed_round_an_object_that_the_camera_follows(step):
    """The object fills the middle, which is what the correlation of whole pictures sees most of."""
    whole, thing = still(), shown(still(1), (0, 0))
    pictures = [shown(whole, (t * step[0], t * step[1])) for t in range(6)]
    for picture in pictures:
        picture[..., 45:115, 40:120] = thing[..., 45:115, 40:120]
    found = followed(pictures)
    assert [moved.place for moved in found] == [(t * step[0], t * step[1]) for t in range(1, 6)]
    assert all(moved.fits for moved in found)


def test_a_scene_goes_on_after_a_zoom():
    whole = still()
    pictures = [seen(whole, zoom=1.03**t) for t in range(3)]
    pictures += [seen(whole, zoom=1.03**2, place=(0, 4 * t / 1.03**2)) for t in (1, 2)]
    found = followed(pictures)
    assert [moved.fits for moved in found] == [False, False, True, True]
    assert [moved.place for moved in found] == [(0, 0), (0, 0), (0, 4), (0, 8)]


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


@pytest.mark.parametrize("name", ["smallest_fit", "smallest_share", "reach"])
def test_refusals(name):
    with pytest.raises(ValueError, match=rf"Translation: {name}=1.5 must be above 0 and below 1"):
        Translation(**{name: 1.5})
    with pytest.raises(ValueError, match=r"Translation: maps='pixels' must be one of frame, view"):
        Translation(maps="pixels")
