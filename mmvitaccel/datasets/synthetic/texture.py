"""Multi-octave noise: the raw material of backgrounds and object surfaces."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np


def smooth_noise(
    rng: np.random.Generator, shape: tuple[int, int], cell: tuple[float, float]
) -> np.ndarray:
    """Draw one octave: random values on a coarse grid, interpolated to pixels.

    Args:
        rng: Source of the values.
        shape: (H, W) in pixels.
        cell: (height, width) of a grid cell in pixels; unequal values give a grain.

    Returns:
        (H, W) float32, roughly of mean 0 and standard deviation 1.
    """
    rows = int(np.ceil(shape[0] / cell[0])) + 2
    cols = int(np.ceil(shape[1] / cell[1])) + 2
    grid = rng.standard_normal((rows, cols), dtype=np.float32)
    full = (int(np.ceil(cols * cell[1])), int(np.ceil(rows * cell[0])))
    pixels = cv2.resize(grid, full, interpolation=cv2.INTER_CUBIC)
    # Cut at random, so that grid nodes do not line up with the picture's corner
    top = int(rng.integers(pixels.shape[0] - shape[0] + 1))
    left = int(rng.integers(pixels.shape[1] - shape[1] + 1))
    return pixels[top : top + shape[0], left : left + shape[1]]


def fractal_noise(
    rng: np.random.Generator,
    shape: tuple[int, int],
    cell: float,
    octaves: int = 4,
    persistence: float = 0.55,
    grain: float = 1.0,
) -> np.ndarray:
    """Sum octaves of noise, each with half the cell and less weight than the one before.

    Args:
        rng: Source of the values.
        shape: (H, W) in pixels.
        cell: Cell of the coarsest octave in pixels.
        octaves: Number of octaves; those with cells below a pixel are left out.
        persistence: Weight of an octave relative to the coarser one.
        grain: Width of a cell relative to its height.

    Returns:
        (H, W) float32 of mean 0 and standard deviation 1.
    """
    total = np.zeros(shape, np.float32)
    weight = 1.0
    for _ in range(octaves):
        if cell < 1:
            break
        total += weight * smooth_noise(rng, shape, (cell, max(cell * grain, 1.0)))
        weight *= persistence
        cell /= 2
    return (total - total.mean()) / (total.std() + 1e-6)


def colour(hue: float, saturation: float, value: float) -> np.ndarray:
    """Convert one HSV colour, all in 0..1 (the hue wraps around), to (3,) float32 RGB."""
    rgb = colorsys.hsv_to_rgb(hue % 1.0, np.clip(saturation, 0, 1), np.clip(value, 0, 1))
    return np.array(rgb, np.float32)


def blend(low: np.ndarray, high: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Mix two colours by a map.

    Args:
        low: (3,) colour, or (H, W, 3) colours, where the weight is 0.
        high: The same where the weight is 1.
        weight: (H, W), clipped to 0..1.

    Returns:
        (H, W, 3) float32.
    """
    weight = np.clip(weight, 0, 1).astype(np.float32)[..., None]
    return low * (1 - weight) + high * weight
