"""Textured objects of five classes, told apart by shape, colour and texture."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from mmvitaccel.datasets.synthetic.texture import blend, colour, fractal_noise

# outline (K, 2) in units of the radius, albedo (S, S, 3), height of the relief, gloss
_Drawing = tuple[np.ndarray, np.ndarray, float, float]

CLASSES = ("ball", "leaf", "brick", "crystal", "starfish")

SPRITE_SIZE = 96
# A rim of clear pixels, so that interpolation never meets the sprite's border
_REACH = 0.46


@dataclass(frozen=True)
class Sprite:
    """One object, drawn once and placed in any number of frames.

    Attributes:
        label: Index into ``CLASSES``.
        albedo: (S, S, 3) float32 RGB surface colour in 0..1, without any light.
        alpha: (S, S) float32 coverage in 0..1.
        height: (S, S) float32 relief in units of the object's radius; light reads its slope.
        gloss: Strength of the highlight, 0 for a dull surface.
    """

    label: int
    albedo: np.ndarray
    alpha: np.ndarray
    height: np.ndarray
    gloss: float


def make_sprite(rng: np.random.Generator, label: int) -> Sprite:
    """Draw a new object of a class.

    Args:
        rng: Random generator.
        label: Index into ``CLASSES``.

    Returns:
        The sprite. Its longest diameter spans ``2 * 0.46`` of the sprite's side.
    """
    axis = np.linspace(-0.5, 0.5, SPRITE_SIZE, dtype=np.float32) / _REACH
    u, v = np.meshgrid(axis, axis)
    outline, albedo, relief, gloss = _DRAW[label](rng, u, v)
    alpha = _fill(outline)
    roughness = fractal_noise(rng, alpha.shape, 12, octaves=4)[..., None]
    albedo = np.clip(albedo * (1 + 0.07 * roughness), 0, 1)
    return Sprite(label, albedo.astype(np.float32), alpha, relief * _dome(alpha), gloss)


def _fill(outline: np.ndarray) -> np.ndarray:
    """Coverage (S, S) of a polygon (K, 2) given in units of the object's radius."""
    oversample, shift = 4, 4
    side = SPRITE_SIZE * oversample
    # fillPoly counts from pixel centres; the -0.5 keeps coverage centred after INTER_AREA
    points = (outline * _REACH + 0.5) * side - 0.5
    mask = np.zeros((side, side), np.uint8)
    cv2.fillPoly(mask, [np.round(points * 2**shift).astype(np.int32)], 255, shift=shift)
    small = cv2.resize(mask, (SPRITE_SIZE, SPRITE_SIZE), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32) / 255


def _dome(alpha: np.ndarray) -> np.ndarray:
    """Height (S, S) that rises from the outline to the middle, rounded at the rim."""
    inside = (alpha > 0.5).astype(np.uint8)
    distance = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    depth = np.clip(distance / max(float(distance.max()), 1.0), 0, 1)
    return cv2.GaussianBlur(np.sqrt(1 - (1 - depth) ** 2), (0, 0), 1.5)


def _round_outline(radius: np.ndarray, angle: np.ndarray) -> np.ndarray:
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _angles(count: int) -> np.ndarray:
    return np.linspace(0, 2 * np.pi, count, endpoint=False)


def _ball(rng: np.random.Generator, u: np.ndarray, v: np.ndarray) -> _Drawing:
    """A glossy pink to red ellipsoid with pale dots."""
    squash = rng.uniform(0.8, 1.0)
    outline = _round_outline(np.ones(64), _angles(64)) * [1.0, squash]
    base = colour(rng.uniform(0.86, 1.03), rng.uniform(0.45, 0.95), rng.uniform(0.5, 0.95))
    dots = np.cos(u * np.pi * rng.uniform(2.6, 3.6)) * np.cos(v * np.pi * rng.uniform(2.6, 3.6))
    pale = colour(rng.uniform(0, 1), rng.uniform(0.0, 0.15), 0.95)
    return outline, blend(base, pale, (dots - 0.55) * 6), 0.9, 0.6


def _leaf(rng: np.random.Generator, u: np.ndarray, v: np.ndarray) -> _Drawing:
    """A pointed green blade with veins."""
    along = np.linspace(-1, 1, 40)
    width = rng.uniform(0.38, 0.6)
    skew = rng.uniform(-0.3, 0.3)
    half = width * (1 - along**2) * (1 + skew * along)
    outline = np.concatenate([np.stack([along, half], 1), np.stack([along, -half], 1)[::-1]])
    base = colour(rng.uniform(0.18, 0.42), rng.uniform(0.35, 0.85), rng.uniform(0.35, 0.75))
    veins = np.sin((u + np.abs(v) * rng.uniform(0.7, 1.2)) * rng.uniform(18, 24))
    midrib = 1 - np.abs(v) * 14
    weight = np.maximum(np.clip(veins - 0.55, 0, 1) * 1.2, midrib) * 0.6
    return outline, blend(base, np.minimum(base * 1.7 + 0.1, 1), weight), 0.35, 0.15


def _brick(rng: np.random.Generator, u: np.ndarray, v: np.ndarray) -> _Drawing:
    """A dull terracotta block with courses of mortar."""
    half = rng.uniform(0.48, 0.7)
    scale = 1 / np.hypot(1, half)
    outline = np.array([[-1, -half], [1, -half], [1, half], [-1, half]]) * scale
    base = colour(rng.uniform(0.0, 0.09), rng.uniform(0.35, 0.8), rng.uniform(0.4, 0.8))
    course_height = 2 * half * scale / 3
    course = np.floor((v + half * scale) / course_height)
    across = (u + 0.25 * (course % 2)) * 2.2
    gap_y = np.abs((v + half * scale) / course_height - course - 0.5)
    gap_x = np.abs(across - np.floor(across) - 0.5)
    mortar = np.maximum(gap_y - 0.36, (gap_x - 0.42) * 1.5) * 14
    speckle = blend(
        base * 0.75, np.minimum(base * 1.2, 1), 0.5 + 0.3 * fractal_noise(rng, u.shape, 5)
    )
    return outline, blend(speckle, colour(0.1, 0.12, rng.uniform(0.7, 0.85)), mortar), 0.25, 0.0


def _crystal(rng: np.random.Generator, u: np.ndarray, v: np.ndarray) -> _Drawing:
    """A glossy blue polygon with facets of different brightness."""
    corners = int(rng.integers(6, 9))
    angle = np.sort(_angles(corners) + rng.uniform(-0.25, 0.25, corners))
    outline = _round_outline(rng.uniform(0.75, 1.0, corners), angle)
    base = colour(rng.uniform(0.45, 0.7), rng.uniform(0.3, 0.8), rng.uniform(0.55, 0.95))
    sector = np.searchsorted(angle, np.arctan2(v, u) % (2 * np.pi)) % corners
    tone = rng.uniform(0.55, 1.25, corners).astype(np.float32)[sector]
    table = np.hypot(u, v) < rng.uniform(0.32, 0.45)
    tone = np.where(table, rng.uniform(1.1, 1.4), tone)
    return outline, np.minimum(base * tone[..., None] + 0.06, 1), 0.3, 0.8


def _starfish(rng: np.random.Generator, u: np.ndarray, v: np.ndarray) -> _Drawing:
    """A bumpy orange to yellow star of five arms."""
    angle = _angles(120)
    sharp = rng.uniform(0.24, 0.34)
    outline = _round_outline(1 - sharp * 1.6 * np.abs(np.sin(2.5 * angle)) ** 0.8, angle)
    base = colour(rng.uniform(0.05, 0.17), rng.uniform(0.4, 0.9), rng.uniform(0.55, 0.98))
    bumps = fractal_noise(rng, u.shape, 6, octaves=2)
    ridge = np.cos(2.5 * np.arctan2(v, u)) ** 8
    albedo = blend(base, base * [0.75, 0.55, 0.5], 0.5 * (bumps > 0.7) + 0.3 * ridge)
    return outline, albedo, 0.5, 0.1


# In the order of CLASSES
_DRAW = (_ball, _leaf, _brick, _crystal, _starfish)
