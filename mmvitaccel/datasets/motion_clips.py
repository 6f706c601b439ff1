"""Generated clips of seven motions that a single frame does not show.

Objects move over a still background that wraps around, grow or shrink in an endless cycle, or turn.
Position, size and angle of an object have the same distribution in every frame of every class
(:class:`ObjectState`); only the change from frame to frame identifies the motion.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from mmvitaccel.datasets.synthetic.store import write_set
from mmvitaccel.datasets.synthetic.texture import blend, colour, fractal_noise

MOTIONS = ("left", "right", "up", "down", "grow", "shrink", "turn")
SPLITS = ("train", "val")
FPS = 25
# Increased when the pictures change, so that older sets are not reused
GENERATOR_VERSION = 2

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class MotionSetSettings:
    """Settings of a set of clips.

    Attributes:
        num_train: Training clips; the motions alternate.
        num_val: Clips held out.
        num_frames: Frames in each.
        img_size: (H, W) in pixels.
        objects: Fewest and most objects in a clip; all of them move alike.
        speed: Slowest and fastest movement, in pixels per frame.
        swelling: Slowest and fastest change of size, in cycles per frame.
        turning: Slowest and fastest rotation, in degrees per frame.
        noise: Standard deviation of the sensor's noise, new in each frame, in levels of 255.
        seed: Same seed, same pictures.
    """

    num_train: int = 1400
    num_val: int = 280
    num_frames: int = 24
    img_size: tuple[int, int] = (64, 64)
    objects: tuple[int, int] = (1, 2)
    speed: tuple[float, float] = (1.5, 3.0)
    swelling: tuple[float, float] = (0.03, 0.06)
    turning: tuple[float, float] = (7.0, 15.0)
    noise: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        counts = (self.num_train, self.num_val, self.num_frames, self.objects[0])
        if min(counts) < 1 or self.objects[1] < self.objects[0]:
            raise ValueError(
                f"num_train={self.num_train}, num_val={self.num_val}, num_frames={self.num_frames} "
                f"and objects={self.objects} must be at least 1, the latter in rising order."
            )
        if min(self.img_size) < 16 or any(side % 2 for side in self.img_size):
            raise ValueError(
                f"img_size={self.img_size} must be even (video codecs) and at least 16 a side."
            )


@dataclass(frozen=True)
class ObjectState:
    """An object in the middle frame of its clip; uniform in all four, whatever the motion.

    Attributes:
        x: Column of its centre in 0..1 of the width, which wraps around.
        y: Row of its centre in 0..1 of the height, which wraps around.
        phase: Where in its cycle of growth it is, in 0..1: invisibly faint at both ends.
        angle: Its rotation in degrees.
    """

    x: float
    y: float
    phase: float
    angle: float


def draw_clip(settings: MotionSetSettings, motion: str, split: str, index: int) -> np.ndarray:
    """Draw one clip, independent of the others.

    Args:
        settings: What to draw.
        motion: One of ``MOTIONS``. The middle frame is the same for each of them.
        split: ``'train'`` or ``'val'``.
        index: Number of the clip in its split.

    Returns:
        (T, H, W, 3) uint8 RGB.
    """
    rng = np.random.default_rng([settings.seed, SPLITS.index(split), index])
    shape = settings.img_size
    background = _background(rng, shape)
    count = int(rng.integers(settings.objects[0], settings.objects[1] + 1))
    states = [ObjectState(*rng.random(3), float(rng.uniform(0, 360))) for _ in range(count)]
    looks = [_Look.draw(rng, min(shape)) for _ in range(count)]
    rates = _rates(rng, settings, motion)
    noise = rng.standard_normal((settings.num_frames, *shape, 3), dtype=np.float32)
    clip = np.empty((settings.num_frames, *shape, 3), np.uint8)
    for t in range(settings.num_frames):
        frame = background
        for state, look in zip(states, looks):
            frame = _add_object(frame, look, _moved(state, rates, t - settings.num_frames // 2))
        levels = 255 * frame + settings.noise * noise[t]
        clip[t] = np.clip(np.round(levels), 0, 255)
    return clip


def make_motion_set(
    out_dir: str | os.PathLike,
    settings: MotionSetSettings | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Draw clips and write them in the format of mmaction2's ``VideoDataset``.

    ``{train,val}/00000.mp4`` with ``{train,val}.txt``, a line ``train/00000.mp4 <label>`` for each
    clip; labels count through ``MOTIONS``, whose names are in ``classes.txt``. A second call with
    the same settings returns at once.

    Args:
        out_dir: Where the set is written; parents are made.
        settings: What to draw. Defaults to ``MotionSetSettings()``.
        overwrite: Replace a set made with other settings.
        progress: Called after each clip with what is written, the number done and the total.

    Returns:
        ``out_dir`` as a path.

    Raises:
        ValueError: If ``out_dir`` holds something else.
    """
    settings = settings or MotionSetSettings()

    def fill(folder: Path) -> None:
        for split, count in zip(SPLITS, (settings.num_train, settings.num_val)):
            (folder / split).mkdir()
            lines = []
            for index in range(count):
                label = index % len(MOTIONS)
                name = f"{split}/{index:05d}.mp4"
                clip = draw_clip(settings, MOTIONS[label], split, index)
                write_clip(folder / name, clip)
                lines.append(f"{name} {label}\n")
                if progress is not None:
                    progress(f"{split} clips", index + 1, count)
            (folder / f"{split}.txt").write_text("".join(lines))
        (folder / "classes.txt").write_text("".join(f"{name}\n" for name in MOTIONS))

    record = {"kind": "motion clips", "generator": GENERATOR_VERSION, **asdict(settings)}
    return write_set(out_dir, record, fill, overwrite)


def write_clip(path: Path, clip: np.ndarray, fps: float = FPS) -> None:
    """Write frames (T, H, W, 3) uint8 RGB as an mp4.

    Raises:
        RuntimeError: OpenCV cannot write the file.
    """
    size = (clip.shape[2], clip.shape[1])
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), fps, size)
    if not writer.isOpened():
        raise RuntimeError(f"OpenCV cannot write '{path}' with its mp4v codec; check the folder.")
    for frame in clip:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()


def _background(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """A still, textured ground (H, W, 3) float32 in 0..1, in muted, dark colours."""
    mix = fractal_noise(rng, shape, min(shape) * float(rng.uniform(0.2, 0.5)))
    dark = colour(rng.random(), rng.uniform(0.1, 0.35), rng.uniform(0.05, 0.15))
    bright = colour(rng.random(), rng.uniform(0.1, 0.35), rng.uniform(0.2, 0.35))
    return blend(dark, bright, 0.5 + 0.3 * mix)


@dataclass(frozen=True)
class _Look:
    """What an object looks like.

    Attributes:
        radii: Half its length and half its width in pixels, at its middle size.
        ends: Colours of its two ends, (3,) each.
    """

    radii: tuple[float, float]
    ends: tuple[np.ndarray, np.ndarray]

    @classmethod
    def draw(cls, rng: np.random.Generator, unit: float) -> _Look:
        """Draw a look for pictures whose shorter side is ``unit`` pixels."""
        length = float(rng.uniform(0.14, 0.2)) * unit
        hue = rng.random()
        # Always lighter than the ground; else a model has to learn each motion twice, of
        # light objects and of dark ones
        light = colour(hue, rng.uniform(0.2, 0.6), rng.uniform(0.85, 1.0))
        dim = colour(hue + rng.uniform(0.1, 0.3), rng.uniform(0.2, 0.6), rng.uniform(0.6, 0.8))
        return cls((length, length * float(rng.uniform(0.45, 0.6))), (light, dim))


def _rates(
    rng: np.random.Generator, settings: MotionSetSettings, motion: str
) -> tuple[float, float, float, float]:
    """Change of x, y, phase and angle a frame; as many numbers are drawn for every motion."""
    drift, swell, turn = (
        rng.uniform(*r) for r in (settings.speed, settings.swelling, settings.turning)
    )
    height, width = settings.img_size
    rates = {
        "left": (-drift / width, 0.0, 0.0, 0.0),
        "right": (drift / width, 0.0, 0.0, 0.0),
        "up": (0.0, -drift / height, 0.0, 0.0),
        "down": (0.0, drift / height, 0.0, 0.0),
        "grow": (0.0, 0.0, swell, 0.0),
        "shrink": (0.0, 0.0, -swell, 0.0),
        "turn": (0.0, 0.0, 0.0, turn),
    }
    return rates[motion]


def _moved(
    state: ObjectState, rates: tuple[float, float, float, float], frames: int
) -> ObjectState:
    """The state some frames later (or before, if negative)."""
    dx, dy, dphase, dangle = (rate * frames for rate in rates)
    return ObjectState(
        (state.x + dx) % 1, (state.y + dy) % 1, (state.phase + dphase) % 1, state.angle + dangle
    )


def _add_object(frame: np.ndarray, look: _Look, state: ObjectState) -> np.ndarray:
    """Lay an object over a frame (H, W, 3) of a world that wraps around."""
    height, width = frame.shape[:2]
    rows = (np.arange(height, dtype=np.float32) - state.y * height + height / 2) % height
    cols = (np.arange(width, dtype=np.float32) - state.x * width + width / 2) % width
    dy, dx = (rows - height / 2)[:, None], (cols - width / 2)[None, :]
    cosine, sine = np.cos(np.radians(state.angle)), np.sin(np.radians(state.angle))
    # The size goes from a half to twice that in the middle of the cycle.
    scale = 2 ** (2 * state.phase - 1)
    along = (cosine * dx + sine * dy) / (look.radii[0] * scale)
    across = (cosine * dy - sine * dx) / (look.radii[1] * scale)
    distance = (np.sqrt(along**2 + across**2) - 1) * look.radii[1] * scale
    # Faint where the cycle begins anew, so that the jump in size cannot be seen
    visible = np.sin(np.pi * state.phase) ** 0.5
    cover = np.clip(0.5 - distance, 0, 1) * visible
    surface = blend(look.ends[0], look.ends[1], 0.5 + along)
    return frame + cover[..., None] * (surface - frame)
