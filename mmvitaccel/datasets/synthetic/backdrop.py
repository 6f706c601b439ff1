"""Textured backgrounds: floors, walls and clutter that belongs to no class."""

from __future__ import annotations

import cv2
import numpy as np

from mmvitaccel.datasets.synthetic.texture import blend, colour, fractal_noise


def make_backdrop(rng: np.random.Generator, shape: tuple[int, int], unit: float) -> np.ndarray:
    """Paint a background.

    Args:
        rng: Random generator.
        shape: (H, W) in pixels.
        unit: Shorter side of the view in pixels. Textures scale with it, so that a backdrop wider
            than the view looks the same.

    Returns:
        (H, W, 3) float32 RGB in 0..1.
    """
    picture = _surface(rng, shape, unit)
    if rng.random() < 0.5:
        picture = _add_second_surface(rng, picture, unit)
    picture = _add_clutter(rng, picture, unit)
    slope = rng.uniform(-0.25, 0.25, 2)
    rows = np.linspace(-1, 1, shape[0], dtype=np.float32)[:, None]
    cols = np.linspace(-1, 1, shape[1], dtype=np.float32)[None, :]
    light = 1 + slope[0] * rows + slope[1] * cols
    return np.clip(picture * light[..., None], 0, 1).astype(np.float32)


def _muted(rng: np.random.Generator, value: tuple[float, float]) -> np.ndarray:
    return colour(rng.random(), rng.uniform(0.03, 0.4), rng.uniform(*value))


def _surface(rng: np.random.Generator, shape: tuple[int, int], unit: float) -> np.ndarray:
    """One material: two colours mixed by coarse noise, with a fine grain on top."""
    cell = unit * rng.uniform(0.12, 0.5)
    grain = float(rng.choice([1.0, 1.0, 3.0, 8.0]))
    persistence = rng.uniform(0.45, 0.7)
    noise = fractal_noise(rng, shape, cell, 6, persistence, grain)
    dark, bright = _muted(rng, (0.15, 0.5)), _muted(rng, (0.45, 0.9))
    fine = fractal_noise(rng, shape, 3, octaves=2)[..., None]
    return blend(dark, bright, 0.5 + 0.28 * noise) * (1 + rng.uniform(0.02, 0.09) * fine)


def _add_second_surface(rng: np.random.Generator, picture: np.ndarray, unit: float) -> np.ndarray:
    """Split the picture along a line, as floor and wall do, softly or sharply."""
    height, width = picture.shape[:2]
    other = _surface(rng, (height, width), unit)
    angle = rng.uniform(0, 2 * np.pi)
    rows, cols = np.mgrid[:height, :width].astype(np.float32)
    middle = rng.uniform(0.3, 0.7, 2) * [height, width]
    side = (rows - middle[0]) * np.sin(angle) + (cols - middle[1]) * np.cos(angle)
    wobble = (
        fractal_noise(rng, (height, width), unit * 0.3, octaves=3) * unit * rng.uniform(0, 0.06)
    )
    return blend(picture, other, 0.5 + (side + wobble) / (unit * rng.uniform(0.01, 0.15)))


def _add_clutter(rng: np.random.Generator, picture: np.ndarray, unit: float) -> np.ndarray:
    """Scatter plain shapes, some as vivid as the objects, so colour does not give objects away."""
    height, width = picture.shape[:2]
    area = height * width / unit**2
    mottle = 1 + 0.08 * fractal_noise(rng, (height, width), unit * 0.05, octaves=3)[..., None]
    for _ in range(round(rng.integers(2, 10) * area)):
        mask = np.zeros((height, width), np.float32)
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        axes = tuple(int(a) for a in rng.uniform(0.03, 0.16, 2) * unit + 1)
        tilt = float(rng.uniform(0, 360))
        if rng.random() < 0.5:
            cv2.ellipse(mask, centre, axes, tilt, 0, 360, 1.0, -1)
        else:
            corners = cv2.boxPoints((centre, (axes[0] * 2, axes[1] * 2), tilt))
            cv2.fillPoly(mask, [np.round(corners).astype(np.int32)], 1.0)
        mask = cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.5, 0.02 * unit + 1))
        vivid = rng.random() < 0.4
        tint = (
            colour(rng.random(), rng.uniform(0.35, 0.8), rng.uniform(0.4, 0.9))
            if vivid
            else _muted(rng, (0.2, 0.85))
        )
        tint = tint * mottle
        picture = blend(picture, tint, mask * rng.uniform(0.5, 0.95))
    return picture
