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


def overlap(now: Tensor, then: Tensor, by: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """What both of two pictures (height, width) show if the camera moved by (down, right)."""
    for axis, step in enumerate(by):
        common = now.shape[axis] - abs(step)
        now = now.narrow(axis, max(-step, 0), common)
        then = then.narrow(axis, max(step, 0), common)
    return now, then


def _difference(now: Tensor, then: Tensor, by: tuple[int, int]) -> Tensor:
    """Mean absolute difference over the overlap of two shifted pictures, ()."""
    now, then = overlap(now, then, by)
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
    # The highest frequencies are mostly noise; dropping them leaves a quarter of the work
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
    low = (size[0] // 2, size[1] // 2)
    surface = torch.fft.irfft2(now * then.conj() * weights(low, now.device), low)
    scale = surface.new_tensor((-2, -2, 1))
    return peaks_of(surface[None])[0] * scale


def weights(size: tuple[int, int], device: torch.device, width: float = PEAK) -> Tensor:
    """The Gaussian weight of a spectrum, by frequency.

    Args:
        size: Height and width of the picture.
        device: Of the spectrum.
        width: Standard deviation of the peak, in pixels.

    Returns:
        (height, width // 2 + 1), as ``rfft2`` gives the spectrum.
    """
    rows = _weights(torch.fft.fftfreq(size[0], device=device), width)
    return rows[:, None] * _weights(torch.fft.rfftfreq(size[1], device=device), width)


def peaks_of(surfaces: Tensor, width_of_peak: float = PEAK) -> Tensor:
    """The highest point of each surface that a correlation with :func:`weights` gave.

    Args:
        surfaces: (B, height, width).
        width_of_peak: That of the weights.

    Returns:
        (B, 3) float32: pixels down and right, of either sign, and the height, at most 1.
    """
    number, height, width = surfaces.shape
    rows = torch.arange(number, device=surfaces.device)
    top, peak = surfaces.flatten(1).max(1)
    y, x = peak.div(width, rounding_mode="floor"), peak.remainder(width)
    near = torch.arange(-1, 2, device=surfaces.device)[:, None]
    down = y + _summit(surfaces[rows, (y + near) % height, x])
    right = x + _summit(surfaces[rows, y, (x + near) % width])
    # The transform is periodic; a shift beyond the middle is one in the other direction
    down = torch.where(down > height / 2, down - height, down)
    right = torch.where(right > width / 2, right - width, right)
    highest = 1.0
    for side in (height, width):
        frequency = torch.fft.fftfreq(side, device=surfaces.device)
        highest = highest * _weights(frequency, width_of_peak).mean()
    return torch.stack((down, right, top / highest), 1)


def _weights(frequency: Tensor, width: float) -> Tensor:
    """The weight of one axis, by frequency in cycles per pixel."""
    return torch.exp(-2 * (math.pi * width * frequency) ** 2)


def _summit(three: Tensor) -> Tensor:
    """Offset of the maximum of the Gaussian through three neighbours (3, ...) from the middle."""
    left, middle, right = three.clamp_min(1e-9).log().unbind()
    place = 0.5 * (left - right) / (left - 2 * middle + right)
    return place.nan_to_num(0.0, 0.0, 0.0).clamp(-0.5, 0.5)
