"""Video sets in CocoVID's format, as mmdet's video datasets and mmtracking's converters have it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from mmvitaccel.datasets.synthetic.annotation import CATEGORIES, annotate
from mmvitaccel.datasets.synthetic.backdrop import make_backdrop
from mmvitaccel.datasets.synthetic.coco import (
    GENERATOR_VERSION,
    SPLITS,
    Progress,
    check_drawing,
    write_png,
)
from mmvitaccel.datasets.synthetic.motion import Lie, Pan, make_pan, wander
from mmvitaccel.datasets.synthetic.placement import scatter
from mmvitaccel.datasets.synthetic.scene import Visible, make_camera, quantise, render
from mmvitaccel.datasets.synthetic.sprites import CLASSES, make_sprite
from mmvitaccel.datasets.synthetic.store import write_json, write_set

BACKGROUNDS = ("fixed", "panning")
# ImageNet VID trains on this many frames of a video, evenly spread
VID_TRAIN_FRAMES = 15
FPS = 25


@dataclass(frozen=True)
class VideoSetSettings:
    """Settings of a video set.

    Attributes:
        num_train: Training videos.
        num_val: Held-out videos.
        num_frames: Frames in each.
        img_size: (H, W) in pixels.
        backgrounds: ``'fixed'`` (static camera), ``'panning'`` or both, which alternate from video
            to video.
        objects: Fewest and most objects in a video.
        object_size: Smallest and largest diameter, relative to the shorter side.
        still: Share of the objects that do not move on the ground.
        speed: Largest movement between frames, relative to the shorter side.
        noise: Sensor noise at mid grey, new in each frame, in levels of 255. Without it, static
            parts of a scene have the same bytes in each frame.
        seed: Same seed, same bytes.
    """

    num_train: int = 8
    num_val: int = 4
    num_frames: int = 24
    img_size: tuple[int, int] = (160, 160)
    backgrounds: tuple[str, ...] = BACKGROUNDS
    objects: tuple[int, int] = (2, 5)
    object_size: tuple[float, float] = (0.16, 0.45)
    still: float = 0.25
    speed: float = 0.02
    noise: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.num_train, self.num_val, self.num_frames) < 1:
            raise ValueError(
                f"num_train={self.num_train}, num_val={self.num_val} and "
                f"num_frames={self.num_frames} must be at least 1."
            )
        unknown = [name for name in self.backgrounds if name not in BACKGROUNDS]
        if unknown or not self.backgrounds:
            raise ValueError(
                f"backgrounds={tuple(self.backgrounds)} must name one or more of {BACKGROUNDS}."
            )
        if not 0 <= self.still <= 1:
            raise ValueError(f"still={self.still} must be in 0..1.")
        if not 0 < self.speed <= 0.2:
            raise ValueError(f"speed={self.speed} must be in (0, 0.2] of the shorter side a frame.")
        check_drawing(self.img_size, self.objects, self.object_size, self.noise, self.seed)


def make_video_set(
    out_dir: str | os.PathLike,
    settings: VideoSetSettings | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Draw videos and write them in CocoVID's format.

    ``{train,val}/video_00000/000000.png`` with ``annotations/vid_{train,val}.json``: ``videos``,
    ``images`` with ``video_id``, ``frame_id`` from 0 and ``is_vid_train_frame``, ``annotations``
    with ``video_id`` and ``instance_id``. A second call with the same settings returns at once.

    Args:
        out_dir: Folder for the set; parents are created.
        settings: What to draw. Defaults to ``VideoSetSettings()``.
        overwrite: Replace a set made with other settings.
        progress: Called after each video.

    Returns:
        ``out_dir`` as a path.

    Raises:
        ValueError: If ``out_dir`` holds something else.
    """
    settings = settings or VideoSetSettings()

    def fill(folder: Path) -> None:
        for split, count in zip(SPLITS, (settings.num_train, settings.num_val)):
            writer = _SplitWriter(folder, split, settings)
            for index in range(count):
                writer.add_video(index)
                if progress is not None:
                    progress(f"{split} videos", index + 1, count)
            writer.close()

    record = {"kind": "videos", "generator": GENERATOR_VERSION, **asdict(settings)}
    return write_set(out_dir, record, fill, overwrite)


def draw_video(
    settings: VideoSetSettings, split: str, index: int
) -> Iterator[tuple[np.ndarray, list[Visible]]]:
    """Draw one video of a set, independent of the others.

    Args:
        settings: What to draw.
        split: ``'train'`` or ``'val'``.
        index: Number of the video in its split.

    Yields:
        For each frame, (H, W, 3) uint8 RGB and the objects, always in the same order.
    """
    rng = np.random.default_rng([settings.seed, 1, SPLITS.index(split), index])
    unit = min(settings.img_size)
    pan = Pan((0, 0), (0.0, 0.0))
    if background_of(settings, index) == "panning":
        pan = make_pan(rng, unit, settings.speed * unit)
    wide = (settings.img_size[0] + pan.reach[1], settings.img_size[1] + pan.reach[0])
    backdrop = make_backdrop(rng, wide, unit)
    camera = make_camera(rng)
    homes = scatter(rng, settings.img_size, settings.objects, settings.object_size)
    sprites = [make_sprite(rng, int(rng.integers(len(CLASSES)))) for _ in homes]
    motions = [
        Lie(home, pan)
        if rng.random() < settings.still
        else wander(rng, home, settings.speed * unit)
        for home in homes
    ]
    for frame in range(settings.num_frames):
        view = _crop(backdrop, pan(frame), settings.img_size)
        poses = [motion(frame) for motion in motions]
        picture, visible = render(view, sprites, poses, camera)
        yield quantise(picture, rng, settings.noise), visible


def background_of(settings: VideoSetSettings, index: int) -> str:
    """Tell the kind of background of a video, by its number in its split."""
    return settings.backgrounds[index % len(settings.backgrounds)]


def _crop(
    backdrop: np.ndarray, corner: tuple[float, float], img_size: tuple[int, int]
) -> np.ndarray:
    """Cut a view (H, W, 3) out of a backdrop at a corner (left, top) between pixels."""
    matrix = np.array([[1, 0, corner[0]], [0, 1, corner[1]]], np.float64)
    return cv2.warpAffine(
        backdrop,
        matrix,
        (img_size[1], img_size[0]),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )


class _SplitWriter:
    """Frames and records of one split."""

    def __init__(self, folder: Path, split: str, settings: VideoSetSettings) -> None:
        self.folder = folder
        self.split = split
        self.settings = settings
        self.videos: list[dict] = []
        self.images: list[dict] = []
        self.annotations: list[dict] = []
        self.instances = 0

    def add_video(self, index: int) -> None:
        """Draw and write one video."""
        name = f"video_{index:05d}"
        (self.folder / self.split / name).mkdir(parents=True)
        height, width = self.settings.img_size
        sampled = self._train_frames()
        video = {
            "id": index + 1,
            "name": name,
            "height": height,
            "width": width,
            "fps": FPS,
            "vid_train_frames": sampled,
            "background": background_of(self.settings, index),
        }
        self.videos.append(video)
        visible: list[Visible] = []
        for frame_id, (picture, visible) in enumerate(draw_video(self.settings, self.split, index)):
            file_name = f"{name}/{frame_id:06d}.png"
            write_png(self.folder / self.split / file_name, picture)
            image = {
                "id": len(self.images) + 1,
                "file_name": file_name,
                "height": height,
                "width": width,
                "video_id": video["id"],
                "frame_id": frame_id,
                "is_vid_train_frame": frame_id in sampled,
            }
            self.images.append(image)
            self._add_annotations(image, visible)
        self.instances += len(visible)

    def _add_annotations(self, image: dict, visible: list[Visible]) -> None:
        for number, item in enumerate(visible):
            entry = annotate(item)
            if entry is not None:
                record = {
                    "id": len(self.annotations) + 1,
                    "image_id": image["id"],
                    "video_id": image["video_id"],
                    # From 1, for mmdet takes instance 0 for one that has no number
                    "instance_id": self.instances + number + 1,
                    **entry,
                    "occluded": item.fraction < 0.95,
                }
                self.annotations.append(record)

    def _train_frames(self) -> list[int]:
        """Frames to train on: evenly spread, as in ImageNet VID; none in other splits."""
        if self.split != "train":
            return []
        count = min(VID_TRAIN_FRAMES, self.settings.num_frames)
        return np.linspace(0, self.settings.num_frames - 1, count).round().astype(int).tolist()

    def close(self) -> None:
        """Write the records."""
        content = {
            "videos": self.videos,
            "images": self.images,
            "annotations": self.annotations,
            "categories": CATEGORIES,
        }
        write_json(self.folder / "annotations" / f"vid_{self.split}.json", content)
