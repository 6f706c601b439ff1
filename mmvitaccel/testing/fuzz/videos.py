"""Mutated videos in the containers that OpenCV writes."""

from __future__ import annotations

import random
from pathlib import Path

import cv2
import numpy as np

from mmvitaccel.testing.fuzz.mutate import mutate_bytes
from mmvitaccel.video_reader import frame_seconds, open_indexed, open_video

_FRAMES = 8
_FORMATS = (("mp4", "mp4v"), ("avi", "MJPG"), ("mkv", "mp4v"), ("avi", "XVID"), ("webm", "VP80"))
_MOST_FRAMES = 100


class Videos:
    """Small videos with changed bytes.

    Args:
        folder: Folder for the files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        written = [_write(folder / f"whole{i}.{f[0]}", f[1]) for i, f in enumerate(_FORMATS)]
        self.whole = [path for path in written if path.stat().st_size]
        self.bytes = [path.read_bytes() for path in self.whole]

    def make(self, rng: random.Random) -> Path:
        """Write a video, in about 10 % with the suffix of another container."""
        index = rng.randrange(len(self.whole))
        suffix = self.whole[index if rng.random() < 0.9 else rng.randrange(len(self.whole))].suffix
        path = self.folder / f"fuzzed{suffix}"
        path.write_bytes(mutate_bytes(self.bytes[index], self.bytes, rng))
        return path

    def read(self, given: Path) -> None:
        """Read the frames one by one, their times, and some frames by index."""
        with open_video(given) as video:
            for count, frame in enumerate(video):
                if frame.image.ndim != 3 or frame.image.dtype != np.uint8:
                    raise TypeError(f"frame {count} is {frame.image.shape} {frame.image.dtype}")
                if count > _MOST_FRAMES:
                    break
            video.notes()
        frame_seconds(given)
        indexed = open_indexed(given)
        indexed.frames(sorted({0, len(indexed) // 2, len(indexed) - 1}))


def _write(path: Path, codec: str) -> Path:
    rng = np.random.default_rng(0)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 10.0, (64, 48))
    for _ in range(_FRAMES):
        picture = np.kron(rng.integers(0, 256, (6, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
        writer.write(picture)
    writer.release()
    if not path.exists():
        path.write_bytes(b"")
    return path
