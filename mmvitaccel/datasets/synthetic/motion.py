"""Positions of objects and camera at each frame of a video.

A motion is any function from a frame number to a :class:`~.scene.Pose`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mmvitaccel.datasets.synthetic.scene import Pose


@dataclass(frozen=True)
class Wander:
    """A smooth closed path around a position, with small steps between frames.

    Attributes:
        home: Centre of the path.
        swing: (2,) largest distance from home in x and y, in pixels.
        breathe: Largest change of size, relative to ``home``.
        turn: Degrees per frame.
        rate: (3,) angular frequency of x, y and size, in radians a frame.
        phase: (3,) start phase of each of them.
    """

    home: Pose
    swing: tuple[float, float]
    breathe: float
    turn: float
    rate: tuple[float, float, float]
    phase: tuple[float, float, float]

    def __call__(self, frame: int) -> Pose:
        """Give the pose at a frame, counted from 0."""
        wave = [np.sin(rate * frame + phase) for rate, phase in zip(self.rate, self.phase)]
        return replace(
            self.home,
            x=float(self.home.x + self.swing[0] * wave[0]),
            y=float(self.home.y + self.swing[1] * wave[1]),
            size=float(self.home.size * (1 + self.breathe * wave[2])),
            angle=float(self.home.angle + self.turn * frame),
        )


@dataclass(frozen=True)
class Pan:
    """A camera that pans back and forth over a backdrop wider than its view.

    Attributes:
        reach: (2,) largest offset in x and y, in pixels; 0, 0 for a static camera.
        rate: (2,) angular frequency of x and y, in radians a frame.
    """

    reach: tuple[int, int]
    rate: tuple[float, float]

    def __call__(self, frame: int) -> tuple[float, float]:
        """Give the view's left and top edge on the backdrop at a frame, in pixels."""
        left, top = (
            reach * (0.5 - 0.5 * np.cos(rate * frame)) for reach, rate in zip(self.reach, self.rate)
        )
        return float(left), float(top)


@dataclass(frozen=True)
class Lie:
    """No motion on the ground; only a panning camera moves the object in the view.

    Attributes:
        home: Its pose in the view at frame 0.
        pan: The camera's sweep.
    """

    home: Pose
    pan: Pan

    def __call__(self, frame: int) -> Pose:
        """Give the pose at a frame, counted from 0."""
        left, top = self.pan(frame)
        return replace(self.home, x=self.home.x - left, y=self.home.y - top)


def wander(rng: np.random.Generator, home: Pose, max_speed: float) -> Wander:
    """Sample a path around a position.

    Args:
        rng: Random generator.
        home: The position.
        max_speed: Largest change of x or y between frames, in pixels.

    Returns:
        The motion.
    """
    rate = rng.uniform(0.06, 0.2, 3)
    swing = rng.uniform(0.4, 1.0, 2) * max_speed / rate[:2]
    return Wander(
        home,
        (float(swing[0]), float(swing[1])),
        float(rng.uniform(0, 0.2)),
        float(rng.uniform(-3, 3)),
        tuple(float(r) for r in rate),
        tuple(float(p) for p in rng.uniform(0, 2 * np.pi, 3)),
    )


def make_pan(rng: np.random.Generator, view: float, max_speed: float) -> Pan:
    """Sample a camera pan.

    Args:
        rng: Random generator.
        view: Shorter side of the view in pixels; scales the reach.
        max_speed: Largest movement of the view in x or y between frames, in pixels.

    Returns:
        The pan.
    """
    reach = np.round(rng.uniform([0.4, 0.1], [0.8, 0.3]) * view).astype(int)
    rate = rng.uniform(0.6, 1.0, 2) * 2 * max_speed / reach
    return Pan((int(reach[0]), int(reach[1])), (float(rate[0]), float(rate[1])))
