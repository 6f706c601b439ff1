"""The first frames of a video as the Eventful paper's detectors take them."""

from __future__ import annotations

import os
from itertools import islice

import cv2
import torch

from mmvitaccel.errors import UserError
from mmvitaccel.video_reader import open_video


def first_frames(video: str | os.PathLike, size: int, count: int) -> list[torch.Tensor]:
    """The first frames of a video as the Eventful paper's detectors take them.

    The long edge becomes ``size`` pixels, or less where the short one would be above
    ``640 * size / 1024``; padded at the bottom and right.

    Returns:
        (1, 3, size, size) each, RGB, about -2 to 2.

    Raises:
        UserError: The video cannot be read, or has fewer frames.
    """
    frames = []
    for frame in islice(open_video(video), count):
        height, width = frame.image.shape[:2]
        scale = min(640 * size / 1024 / min(height, width), size / max(height, width))
        resized = cv2.resize(frame.image, (round(width * scale), round(height * scale)))
        x = (torch.from_numpy(resized).float() - 116) / 58
        padding = (0, 0, 0, size - x.shape[1], 0, size - x.shape[0])
        frames.append(torch.nn.functional.pad(x, padding).permute(2, 0, 1)[None].contiguous())
    if len(frames) < count:
        raise UserError(
            f"{video} has {len(frames)} frames and {count} are needed; set --frames lower."
        )
    return frames
