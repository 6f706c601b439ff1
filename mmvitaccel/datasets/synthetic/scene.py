"""A scene: sprites lit from one side over a backdrop, seen through one camera."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from mmvitaccel.datasets.synthetic.sprites import SPRITE_SIZE, Sprite

AMBIENT = 0.45

Combine = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Pose:
    """Where a sprite is in one frame.

    Attributes:
        x: Column of its centre, in pixels.
        y: Row of its centre, in pixels.
        size: Longest diameter in pixels.
        angle: Rotation in degrees.
    """

    x: float
    y: float
    size: float
    angle: float


@dataclass(frozen=True)
class Camera:
    """Light and lens of a scene; the same in every frame of a video.

    Attributes:
        light: (3,) unit vector towards the light: right, down, towards the viewer.
        gain: (3,) exposure times white balance for R, G, B.
        vignette: Darkening of the corners, 0 for none.
        blur: Standard deviation of the lens blur in pixels.
    """

    light: np.ndarray
    gain: np.ndarray
    vignette: float
    blur: float


@dataclass(frozen=True)
class Visible:
    """The visible part of a sprite in one frame.

    Attributes:
        label: Class index.
        mask: (H, W) bool, the pixels that show it.
        fraction: Visible share of the complete object, in 0..1.
    """

    label: int
    mask: np.ndarray
    fraction: float


def make_camera(rng: np.random.Generator) -> Camera:
    """Sample light and lens."""
    around, up = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 0.9)
    flat = np.sqrt(1 - up**2)
    light = np.array([flat * np.cos(around), flat * np.sin(around), up], np.float32)
    warmth = rng.uniform(-0.07, 0.07)
    gain = rng.uniform(0.55, 1.15) * np.array([1 + warmth, 1, 1 - warmth], np.float32)
    return Camera(light, gain.astype(np.float32), rng.uniform(0, 0.3), rng.uniform(0.3, 0.8))


def render(
    backdrop: np.ndarray, sprites: list[Sprite], poses: list[Pose], camera: Camera
) -> tuple[np.ndarray, list[Visible]]:
    """Compose one frame, back to front.

    Args:
        backdrop: (H, W, 3) float32 RGB in 0..1; left as it is.
        sprites: Objects, from back to front.
        poses: One for each sprite.
        camera: Light and lens.

    Returns:
        The frame (H, W, 3) float32 RGB in 0..255, before sensor noise and rounding, and what is
        visible of each sprite, in the order given.
    """
    canvas = backdrop.copy()
    masks: list[np.ndarray] = []
    whole: list[int] = []
    for sprite, pose in zip(sprites, poses):
        patch = _place(sprite, pose, camera)
        for mask in masks:
            _paste(mask, patch.covers, patch.origin, lambda old, new: old & ~new)
        mask = np.zeros(canvas.shape[:2], bool)
        _paste(mask, patch.covers, patch.origin, lambda old, new: new)
        masks.append(mask)
        whole.append(max(int(patch.covers.sum()), 1))
        _paste(canvas, patch.shadow[..., None], patch.origin, lambda old, new: old * (1 - new))
        layer = np.dstack([patch.shaded, patch.alpha])
        _paste(canvas, layer, patch.origin, _over)
    visible = [
        Visible(sprite.label, mask, float(mask.sum()) / count)
        for sprite, mask, count in zip(sprites, masks, whole)
    ]
    return _expose(canvas, camera), visible


def quantise(frame: np.ndarray, rng: np.random.Generator, noise: float) -> np.ndarray:
    """Add sensor noise and round to uint8.

    Args:
        frame: (H, W, 3) float32 in 0..255.
        rng: Source of the noise.
        noise: Standard deviation at mid grey, in levels; shot noise makes it grow with the square
            root of the light. 0 gives the same bytes for the same light.

    Returns:
        (H, W, 3) uint8.
    """
    if noise > 0:
        sigma = noise * np.sqrt(0.25 + 0.75 * np.clip(frame, 0, 255) / 127.5)
        frame = frame + sigma * rng.standard_normal(frame.shape, dtype=np.float32)
    return np.clip(np.round(frame), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class _Patch:
    """A placed sprite: maps of one side, and where their first pixel is in the frame."""

    origin: tuple[int, int]
    alpha: np.ndarray
    covers: np.ndarray
    shaded: np.ndarray
    shadow: np.ndarray


def _place(sprite: Sprite, pose: Pose, camera: Camera) -> _Patch:
    """Turn, scale and light a sprite on a square of its own, at its position within a pixel."""
    reach = pose.size * 0.75 + 4
    left, top = int(np.floor(pose.x - reach)), int(np.floor(pose.y - reach))
    side = int(np.ceil(2 * reach)) + 1
    # Drawn at twice the size and averaged, or small objects would flicker as they move
    scale = 2 * pose.size / (0.92 * SPRITE_SIZE)
    matrix = cv2.getRotationMatrix2D(((SPRITE_SIZE - 1) / 2,) * 2, pose.angle, scale)
    centre = np.array([2 * (pose.x - left) + 0.5, 2 * (pose.y - top) + 0.5])
    matrix[:, 2] += centre - (SPRITE_SIZE - 1) / 2

    def warp(plane: np.ndarray) -> np.ndarray:
        large = cv2.warpAffine(plane, matrix, (2 * side, 2 * side), flags=cv2.INTER_LINEAR)
        return cv2.resize(large, (side, side), interpolation=cv2.INTER_AREA)

    # Colour averaged with its coverage does not darken along the outline
    layer = warp(np.dstack([sprite.albedo * sprite.alpha[..., None], sprite.alpha]))
    alpha = layer[..., 3]
    albedo = layer[..., :3] / np.maximum(layer[..., 3:], 1e-3)
    shaded = _light(albedo, warp(sprite.height) * pose.size / 2, sprite.gloss, camera.light)
    shadow = _cast(alpha, pose.size, camera.light)
    return _Patch((top, left), alpha, alpha > 0.5, shaded, shadow)


def _light(albedo: np.ndarray, height: np.ndarray, gloss: float, light: np.ndarray) -> np.ndarray:
    """Lambert's law with a highlight on a relief (h, w) in pixels; returns (h, w, 3)."""
    slope_y, slope_x = np.gradient(height)
    length = np.sqrt(slope_x**2 + slope_y**2 + 1)
    towards = (light[2] - slope_x * light[0] - slope_y * light[1]) / length
    diffuse = AMBIENT + (1 - AMBIENT) * np.maximum(towards, 0)
    half = light + np.array([0, 0, 1], np.float32)
    half /= np.linalg.norm(half)
    mirror = np.maximum((half[2] - slope_x * half[0] - slope_y * half[1]) / length, 0)
    return albedo * diffuse[..., None] + (gloss * mirror**40)[..., None]


def _cast(alpha: np.ndarray, size: float, light: np.ndarray) -> np.ndarray:
    """Soft shadow (h, w) in 0..1 on the side away from the light."""
    shift = np.array([[1, 0, -light[0] * 0.14 * size], [0, 1, -light[1] * 0.14 * size]])
    moved = cv2.warpAffine(alpha, shift, alpha.shape[::-1])
    return 0.5 * cv2.GaussianBlur(moved, (0, 0), 0.03 * size + 0.5)


def _over(under: np.ndarray, layer: np.ndarray) -> np.ndarray:
    alpha = layer[..., 3:]
    return under * (1 - alpha) + layer[..., :3] * alpha


def _paste(
    canvas: np.ndarray, patch: np.ndarray, origin: tuple[int, int], combine: Combine
) -> None:
    """Combine a patch into a canvas, in place, cutting what lies outside."""
    top, left = max(origin[0], 0), max(origin[1], 0)
    bottom = min(origin[0] + patch.shape[0], canvas.shape[0])
    right = min(origin[1] + patch.shape[1], canvas.shape[1])
    if bottom <= top or right <= left:
        return
    part = patch[top - origin[0] : bottom - origin[0], left - origin[1] : right - origin[1]]
    canvas[top:bottom, left:right] = combine(canvas[top:bottom, left:right], part)


def _expose(canvas: np.ndarray, camera: Camera) -> np.ndarray:
    """Lens and exposure: blur, vignette, gain; returns (H, W, 3) in 0..255, not clipped."""
    height, width = canvas.shape[:2]
    canvas = cv2.GaussianBlur(canvas, (0, 0), camera.blur)
    rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    cols = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    falloff = 1 - camera.vignette * (rows**2 + cols**2) / 2
    return canvas * (falloff[..., None] * camera.gain * 255)
