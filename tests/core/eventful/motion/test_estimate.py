"""Shifts that are known, between pixels too, and pictures that are no shift of each other."""

from __future__ import annotations

import math

import pytest
import torch

from mmvitaccel.core.eventful.motion.estimate import _summit, look_at, shift_between

SIZE = (176, 144)


def picture(down=0.0, right=0.0, size=SIZE, seed=0):
    """A sum of waves, which is known between pixels too, (1, 3, height, width)."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(size[0])[:, None] + down
    x = torch.arange(size[1]) + right
    out = torch.zeros(3, *size)
    for _ in range(120):
        fy, fx = (torch.rand(2, generator=generator) - 0.5) * 0.5
        phase = torch.rand(3, 1, 1, generator=generator) * 2 * math.pi
        out += torch.sin(2 * math.pi * (fy * y + fx * x) + phase)
    return out[None]


def found(now, then):
    return shift_between(look_at(now), look_at(then))


@pytest.mark.parametrize(
    "moved", [(0, 0), (1, 0), (0, -3), (5, 7), (-12, 16), (0.5, 0), (2.3, -0.7)]
)
def test_known_shifts(moved):
    shift = found(picture(*moved), picture())
    assert (shift.down, shift.right) == pytest.approx(moved, abs=0.15)
    assert shift.fit > 0.5


def test_odd_sizes_and_other_kinds():
    size = (101, 67)
    now, then = picture(3, -2, size), picture(size=size)
    for kind in (torch.float64, torch.bfloat16):
        shift = found(now.to(kind), then.to(kind))
        assert (shift.down, shift.right) == pytest.approx((3, -2), abs=0.2)


def test_noise_takes_little_of_the_fit_and_another_scene_all():
    torch.manual_seed(0)
    then = picture()
    noisy = found(picture(2, 1) + 0.3 * then.std() * torch.randn_like(then), then)
    assert (noisy.down, noisy.right) == pytest.approx((2, 1), abs=0.15)
    assert noisy.fit > 0.3 > 0.2 > found(picture(seed=1), then).fit


def test_the_same_picture_fits_fully():
    assert found(picture(), picture()) == pytest.approx((0, 0, 1), abs=1e-3)


def test_what_is_not_finite_fits_nothing():
    broken = picture()
    broken[0, 0, 5, 5] = torch.nan
    assert math.isnan(found(broken, picture()).fit)
    assert not found(torch.zeros(1, 3, *SIZE), picture()).fit > 0.01  # and nor does nothing at all


@pytest.mark.parametrize("width", [0.6, 1.0, 2.0])
def test_the_maximum_of_a_gaussian_is_found_between_pixels_whatever_its_width(width):
    for offset in (-0.4, 0.0, 0.3):
        near = torch.exp(-0.5 * ((torch.arange(-1.0, 2.0) - offset) / width) ** 2)
        assert float(_summit(near)) == pytest.approx(offset, abs=1e-4)
