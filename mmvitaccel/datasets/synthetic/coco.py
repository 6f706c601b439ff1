"""Image sets in COCO's format."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Callable

import cv2
import numpy as np

from mmvitaccel.datasets.synthetic.annotation import CATEGORIES, annotate
from mmvitaccel.datasets.synthetic.backdrop import make_backdrop
from mmvitaccel.datasets.synthetic.placement import scatter
from mmvitaccel.datasets.synthetic.scene import Visible, make_camera, quantise, render
from mmvitaccel.datasets.synthetic.sprites import CLASSES, make_sprite
from mmvitaccel.datasets.synthetic.store import write_json, write_set

SPLITS = ("train", "val")

# Recorded with each set, so that sets drawn by an older generator are not reused;
# raise it with every change to what is drawn
GENERATOR_VERSION = 1

Progress = Callable[[str, int, int], None]
"""Called with what is being made, how much is done, how much there is."""


@dataclass(frozen=True)
class ImageSetSettings:
    """Settings of an image set.

    Attributes:
        num_train: Training images.
        num_val: Held-out images; they share no random numbers with training images.
        img_size: (H, W) in pixels.
        objects: Fewest and most objects in an image.
        object_size: Smallest and largest diameter, relative to the shorter side.
        noise: Sensor noise at mid grey, in levels of 255.
        seed: Same seed, same bytes.
    """

    num_train: int = 800
    num_val: int = 200
    img_size: tuple[int, int] = (160, 160)
    objects: tuple[int, int] = (2, 6)
    object_size: tuple[float, float] = (0.12, 0.5)
    noise: float = 2.5
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.num_train, self.num_val) < 1:
            raise ValueError(
                f"num_train={self.num_train} and num_val={self.num_val} must be at least 1."
            )
        check_drawing(self.img_size, self.objects, self.object_size, self.noise, self.seed)


def check_drawing(
    img_size: tuple[int, int],
    objects: tuple[int, int],
    object_size: tuple[float, float],
    noise: float,
    seed: int,
) -> None:
    """Check that the settings can be drawn.

    Raises:
        ValueError: If one is out of range.
    """
    if min(img_size) < 32:
        raise ValueError(f"img_size={tuple(img_size)} is too small; use 32 pixels or more a side.")
    if not 1 <= objects[0] <= objects[1]:
        raise ValueError(
            f"objects={tuple(objects)} must be (fewest, most) with 1 <= fewest <= most."
        )
    if not 0 < object_size[0] <= object_size[1] <= 1:
        raise ValueError(
            f"object_size={tuple(object_size)} must be (smallest, largest), both in (0, 1]."
        )
    if noise < 0:
        raise ValueError(f"noise={noise} must not be negative.")
    if seed < 0:
        raise ValueError(f"seed={seed} must not be negative.")


def make_image_set(
    out_dir: str | os.PathLike,
    settings: ImageSetSettings | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Draw images and write them in COCO's format.

    ``train/*.png`` and ``val/*.png`` with ``annotations/instances_train.json`` and
    ``annotations/instances_val.json``. A second call with the same settings returns at once.

    Args:
        out_dir: Folder for the set; parents are created.
        settings: What to draw. Defaults to ``ImageSetSettings()``.
        overwrite: Replace a set made with other settings.
        progress: Called after each image.

    Returns:
        ``out_dir`` as a path.

    Raises:
        ValueError: If ``out_dir`` holds something else.
    """
    settings = settings or ImageSetSettings()

    def fill(folder: Path) -> None:
        for split, count in zip(SPLITS, (settings.num_train, settings.num_val)):
            _write_split(folder, split, count, settings, progress)

    record = {"kind": "images", "generator": GENERATOR_VERSION, **asdict(settings)}
    return write_set(out_dir, record, fill, overwrite)


def draw_image(
    settings: ImageSetSettings, split: str, index: int
) -> tuple[np.ndarray, list[Visible]]:
    """Draw one image of a set, independent of the others.

    Args:
        settings: What to draw.
        split: ``'train'`` or ``'val'``.
        index: Number of the image in its split.

    Returns:
        (H, W, 3) uint8 RGB, and its objects.
    """
    # A random stream per image and split, so that no two images share any numbers
    rng = np.random.default_rng([settings.seed, 0, SPLITS.index(split), index])
    backdrop = make_backdrop(rng, settings.img_size, min(settings.img_size))
    camera = make_camera(rng)
    poses = scatter(rng, settings.img_size, settings.objects, settings.object_size)
    sprites = [make_sprite(rng, int(rng.integers(len(CLASSES)))) for _ in poses]
    frame, visible = render(backdrop, sprites, poses, camera)
    return quantise(frame, rng, settings.noise), visible


def _write_split(
    folder: Path,
    split: str,
    count: int,
    settings: ImageSetSettings,
    progress: Progress | None,
) -> None:
    (folder / split).mkdir()
    images, annotations = [], []
    height, width = settings.img_size
    for index in range(count):
        picture, visible = draw_image(settings, split, index)
        name = f"{index:06d}.png"
        write_png(folder / split / name, picture)
        images.append({"id": index + 1, "file_name": name, "height": height, "width": width})
        for item in visible:
            entry = annotate(item)
            if entry is not None:
                annotations.append({"id": len(annotations) + 1, "image_id": index + 1, **entry})
        if progress is not None:
            progress(f"{split} images", index + 1, count)
    content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    write_json(folder / "annotations" / f"instances_{split}.json", content)


def write_png(path: Path, picture: np.ndarray) -> None:
    """Write (H, W, 3) uint8 RGB without loss.

    Raises:
        OSError: If the file cannot be written.
    """
    # Little compression, which noise would defeat anyway, for reading and writing speed
    if not cv2.imwrite(str(path), picture[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1]):
        raise OSError(f"Cannot write the image '{path}'; is the disk full or read-only?")
