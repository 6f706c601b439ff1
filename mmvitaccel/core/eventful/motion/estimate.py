"""The shift between two pictures by phase correlation (Kuglin and Hines, 1975).

If one picture is a shifted copy of the other, the phases of their spectra differ by a linear ramp,
and the inverse transform of the ramp is a peak at the shift. The spectra are cut to half of the
resolution and weighted by a Gaussian, so that the peak is a Gaussian too, wide enough to be located
between pixels.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

# Standard deviation of the peak, in pixels of half of the resolution.
PEAK = 1.0


class Shift(NamedTuple):
    """The shift of the camera between two pictures.

    Attributes:
        down: Pixels by which the camera moved down.
        right: Pixels by which it moved right.
        fit: Height of the peak: 1 if the whole picture only shifted, NaN if a picture is not
            finite.
    """

    down: float
    right: float
    fit: float


class Look(NamedTuple):
    """A picture, prepared for comparison.

    Attributes:
        grey: (height, width) float32.
        phases: Result of :func:`phases_of`.
    """

    grey: Tensor
    phases: Tensor


def look_at(picture: Tensor) -> Look:
    """Prepare a picture (1, channels, height, width) for comparison."""
    grey = picture[0].float().mean(0)
    return Look(grey, phases_of(grey))


def shift_between(now: Look, then: Look) -> Shift:
    """The shift from an earlier picture to the current one, of the same size.

    The window that fades pictures out towards their edges biases a shift towards 0. Therefore, if
    the first estimate is at least one pixel, the earlier picture is shifted by it and compared
    again. Synchronises with the device, for three numbers per comparison.
    """
    size = tuple(now.grey.shape)
    rough = Shift(*peak_of(now.phases, then.phases, size).tolist())
    if not rough.fit > 0 or max(abs(rough.down), abs(rough.right)) < 1:
        return rough
    down, right = round(rough.down), round(rough.right)
    moved = phases_of(then.grey.roll((-down, -right), (0, 1)))
    fine = Shift(*peak_of(now.phases, moved, size).tolist())
    if not fine.fit >= rough.fit:
        return rough
    return Shift(down + fine.down, right + fine.right, fine.fit)


def lies_better(now: Look, then: Look, by: tuple[int, int], than: tuple[int, int]) -> bool:
    """Whether one shift of an earlier picture matches the current one better than another shift.

    Compares mean absolute differences, which the larger part of the picture dominates if objects
    move by themselves. Synchronises with the device.

    Args:
        now: The current picture.
        then: The earlier picture.
        by: One shift, whole pixels (down, right).
        than: The other shift.
    """
    return bool(_difference(now.grey, then.grey, by) < _difference(now.grey, then.grey, than))


def _difference(now: Tensor, then: Tensor, by: tuple[int, int]) -> Tensor:
    """Mean absolute difference over the overlap of two shifted pictures, ()."""
    for axis, step in enumerate(by):
        common = now.shape[axis] - abs(step)
        now = now.narrow(axis, max(-step, 0), common)
        then = then.narrow(axis, max(step, 0), common)
    return (now - then).abs().mean()


def phases_of(grey: Tensor) -> Tensor:
    """The phases of a picture's spectrum, faded out towards its edges.

    Args:
        grey: (height, width) float32.

    Returns:
        (height // 2, width // 4 + 1) complex64.
    """
    height, width = grey.shape
    fade_y, fade_x = (
        torch.hann_window(side, periodic=False, device=grey.device) for side in grey.shape
    )
    spectrum = torch.fft.rfft2((grey - grey.mean()) * fade_y[:, None] * fade_x)
    # reason: the highest frequencies are mostly noise; dropping them leaves a quarter of the work
    rows, columns = height // 2, width // 2
    low = torch.cat((spectrum[: (rows + 1) // 2], spectrum[height - rows // 2 :]))
    return torch.sgn(low[:, : columns // 2 + 1])


def peak_of(now: Tensor, then: Tensor, size: tuple[int, int]) -> Tensor:
    """The shift from one picture to another, without synchronising with the device.

    Args:
        now: Phases of the current picture.
        then: Phases of the earlier picture.
        size: Height and width of the pictures, in pixels.

    Returns:
        (3,) float32, the fields of a :class:`Shift`.
    """
    height, width = (side // 2 for side in size)
    weight_y = _weights(torch.fft.fftfreq(height, device=now.device))
    weight_x = _weights(torch.fft.rfftfreq(width, device=now.device))
    surface = torch.fft.irfft2(now * then.conj() * weight_y[:, None] * weight_x, (height, width))
    highest = _weights(torch.fft.fftfreq(width, device=now.device)).mean() * weight_y.mean()
    peak = surface.flatten().argmax()
    y, x = peak.div(width, rounding_mode="floor"), peak.remainder(width)
    near = torch.arange(-1, 2, device=now.device)
    down = y + _summit(surface[(y + near) % height, x])
    right = x + _summit(surface[y, (x + near) % width])
    # reason: the transform is periodic; a shift beyond the middle is one in the other direction
    down = torch.where(down > height / 2, down - height, down)
    right = torch.where(right > width / 2, right - width, right)
    return torch.stack((-2 * down, -2 * right, surface[y, x] / highest))


def _weights(frequency: Tensor) -> Tensor:
    """The Gaussian weight of the spectrum, by frequency in cycles per pixel."""
    return torch.exp(-2 * (math.pi * PEAK * frequency) ** 2)


def _summit(three: Tensor) -> Tensor:
    """Offset of the maximum of the Gaussian through three neighbours from the middle one, ()."""
    left, middle, right = three.clamp_min(1e-9).log().unbind()
    place = 0.5 * (left - right) / (left - 2 * middle + right)
    return place.nan_to_num(0.0, 0.0, 0.0).clamp(-0.5, 0.5)
