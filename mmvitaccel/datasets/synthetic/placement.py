"""Initial positions of objects: anywhere in view, mostly without occlusion."""

from __future__ import annotations

import numpy as np

from mmvitaccel.datasets.synthetic.scene import Pose


def scatter(
    rng: np.random.Generator,
    img_size: tuple[int, int],
    objects: tuple[int, int],
    object_size: tuple[float, float],
) -> list[Pose]:
    """Place objects so that they may overlap, but rarely occlude each other.

    Args:
        rng: Random generator.
        img_size: (H, W) in pixels.
        objects: Fewest and most objects; there may be fewer if there is no room.
        object_size: Smallest and largest diameter, relative to the shorter side.

    Returns:
        Poses, from back to front.
    """
    height, width = img_size
    wanted = int(rng.integers(objects[0], objects[1] + 1))
    poses: list[Pose] = []
    for _ in range(10 * wanted):
        if len(poses) == wanted:
            break
        # Uniform in the logarithm, as scale is seen
        size = float(np.exp(rng.uniform(*np.log(object_size)))) * min(img_size)
        # A quarter of the diameter may reach over the border
        margin = 0.25 * size
        x = rng.uniform(margin, width - margin)
        y = rng.uniform(margin, height - margin)
        pose = Pose(float(x), float(y), size, float(rng.uniform(0, 360)))
        if all(_apart(pose, other) for other in poses):
            poses.append(pose)
    return poses


def _apart(one: Pose, other: Pose) -> bool:
    distance = np.hypot(one.x - other.x, one.y - other.y)
    return bool(distance > 0.3 * (one.size + other.size))
