"""An eventful detector of 20 000 parameters that finds much, and videos of 6 frames."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from mmvitaccel.video_reader import VideoWriter
from tests.tiny_detector import HOOK, on_videos, write_weights


def write_video(path: Path, seed: int = 0, size: tuple[int, int] = (40, 56)) -> Path:
    """A square that moves over noise; both follow the seed."""
    rng = np.random.default_rng(seed)
    image = rng.integers(60, 140, (*size, 3), dtype=np.uint8)
    path.parent.mkdir(exist_ok=True, parents=True)
    with VideoWriter(path, 10) as writer:
        for number in range(6):
            moved = image.copy()
            moved[8 + seed : 20 + seed, 6 * number : 6 * number + 12] = 250
            writer.add(moved)
    return path


def write_broken(folder: Path) -> None:
    """Numbered pictures of which the fourth cannot be read."""
    folder.mkdir()
    for number in range(6):
        image = np.full((40, 56, 3), 20 * number, np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), image)
    (folder / "3.png").write_bytes(b"no")


def write_files(root: Path) -> tuple[Path, Path]:
    """A config and its checkpoint."""
    config, weights = root / "config.py", root / "weights.pth"
    config.write_text(on_videos(root) + HOOK)
    write_weights(config, weights)
    return config, weights
