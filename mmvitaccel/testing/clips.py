"""Frames and clips of real videos for benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmvitaccel.errors import UserError
from mmvitaccel.runner.config import load_config
from mmvitaccel.video.clip_steps import ClipSettings, StepMaker
from mmvitaccel.video_reader import open_video

FRAMES, TUBELET = 32, 2
_CONFIG = Path(__file__).parents[2] / "configs/vivit/vivit-base_32x2x1_kinetics400-rgb.py"


def read_clips(video: str, count: int) -> Tensor:
    """Read the first clips of a video, each one time step later than the one before.

    They are sampled and normalised as in the Kinetics configs.

    Args:
        video: See :func:`~mmvitaccel.video_reader.open_video`.
        count: Number of clips.

    Returns:
        (count, 3, 32, 224, 224) float32.

    Raises:
        UserError: If the video cannot be opened or is too short.
    """
    source, length = open_video(video), FRAMES // TUBELET
    maker = StepMaker(ClipSettings.of(load_config(str(_CONFIG), {})), TUBELET, source.fps)
    steps: list[Tensor] = []
    for frame in source:
        step = maker.add(frame)
        if step is not None:
            steps.append((step.float() - 114.75) / 57.375)
        if len(steps) == length + count - 1:
            return torch.cat([torch.cat(steps[i : i + length], 2) for i in range(count)])
    whole = max(len(steps) - length + 1, 0)
    raise UserError(
        f"{video} has {source.given} frames, enough for {whole} of {count} clips; give a longer "
        "one or fewer --clips."
    )


def first_frames_of(folders: Sequence[Path], count: int) -> dict[str, list[np.ndarray]]:
    """Read the first frames of each video.

    Args:
        folders: Folders of videos: files, or folders with numbered images in ``frames``.
        count: Maximum number of frames per video.

    Returns:
        For each video, by name, a list of (H, W, 3) uint8 RGB arrays.
    """
    videos = {}
    for path in sorted(entry for folder in folders for entry in folder.iterdir()):
        source = path / "frames" if path.is_dir() else path
        if source.is_dir() or path.suffix in (".mp4", ".avi", ".mkv", ".webm"):
            videos[path.stem] = [frame.image for frame in islice(open_video(source), count)]
    return videos
