"""Inputs of the benchmark of detectors: pictures, proposals, changing maps, fixed scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import torch
from torch import Tensor

from mmvitaccel.errors import UserError
from mmvitaccel.video_reader import open_video

CHANGES = ("rectangle", "rectangles", "scattered", "everything", "nothing")
# Mean of the fixed logits, which are normally distributed: about one in a thousand scores is above
# 0.05, as for a trained detector.
SCORES_MEAN = -6.0
# Sides of the proposals, in pixels of a picture with a long edge of 1024.
SIDES = (32, 64, 128, 256, 512)


@dataclass(frozen=True)
class Given:
    """The inputs of one frame.

    Attributes:
        picture: (3, H, W) uint8.
        boxes: Proposals for the second stage, (N, 4) in pixels.
        maps: Feature maps for the neck, which replace those of the backbone; None for the
            backbone's.
        scores: Logits for decoding, which replace those of the head; None for the head's.
    """

    picture: Tensor
    boxes: Tensor
    maps: Sequence[Tensor] | None = None
    scores: Sequence[Tensor] | None = None


def pictures_of(video: str, size: tuple[int, int], count: int) -> list[Tensor]:
    """Read the first frames of a video, resized to fit into ``size``.

    Args:
        video: Path of the video.
        size: Maximum long and short edge in pixels.
        count: Number of frames.

    Returns:
        ``count`` pictures (3, H, W) uint8, BGR.

    Raises:
        UserError: The video has fewer frames.
    """
    found = []
    with open_video(video) as source:
        for frame in source:
            height, width = frame.image.shape[:2]
            scale = min(max(size) / max(height, width), min(size) / min(height, width))
            resized = cv2.resize(frame.image, (round(width * scale), round(height * scale)))
            # OpenMMLab's preprocessors expect BGR and convert it to RGB
            found.append(torch.from_numpy(resized[..., ::-1].copy()).permute(2, 0, 1))
            if len(found) == count:
                return found
    raise UserError(f"{video} has {len(found)} frames, but {count} are needed; set --frames lower.")


def grid_of_boxes(picture: Tensor, count: int) -> Tensor:
    """Make about ``count`` boxes (N, 4) on a grid over a picture, the same number of each size."""
    height, width = picture.shape[1:]
    boxes = []
    for side in (s * max(height, width) / 1024 for s in SIDES):
        rows = max(1, round((count / len(SIDES) * height / width) ** 0.5))
        columns = max(1, count // len(SIDES) // rows)
        y = torch.linspace(0, max(height - side, 0), rows)
        x = torch.linspace(0, max(width - side, 0), columns)
        top, left = (a.flatten() for a in torch.meshgrid(y, x, indexing="ij"))
        boxes.append(torch.stack([left, top, left + side, top + side], 1))
    return torch.cat(boxes)


def moved(boxes: Tensor, before: Tensor, now: Tensor) -> Tensor:
    """Move the boxes (N, 4) that cover changed pixels by two pixels to the right and down."""
    changed = ((before.float() - now.float()).abs().amax(0) > 24).float()
    sums = torch.nn.functional.pad(changed.cumsum(0).cumsum(1), (1, 0, 1, 0))
    height, width = changed.shape
    left, right = (boxes[:, i].long().clamp(0, width) for i in (0, 2))
    top, bottom = (boxes[:, i].long().clamp(0, height) for i in (1, 3))
    inside = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    area = ((right - left) * (bottom - top)).clamp(min=1)
    return boxes + 2 * (inside / area > 0.02)[:, None]


def changed_cells(change: str, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Choose the cells of the second level that change in a frame, as a bool mask (H, W)."""
    height, width = size
    mask = torch.zeros(height, width, dtype=torch.bool)
    if change == "everything":
        return ~mask
    if change == "scattered":
        return torch.rand(height, width, generator=generator) < 0.1
    if change == "rectangle":
        rows, columns = round(height * 0.1**0.5), round(width * 0.1**0.5)
        count = 1
    elif change == "rectangles":
        rows, columns, count = min(7, height), min(7, width), 10
    else:
        count = rows = columns = 0
    for _ in range(count):
        top = int(torch.randint(height - rows + 1, (), generator=generator))
        left = int(torch.randint(width - columns + 1, (), generator=generator))
        mask[top : top + rows, left : left + columns] = True
    return mask


def changing_maps(maps: Sequence[Tensor], change: str, count: int) -> list[list[Tensor]]:
    """Make the feature maps of ``count`` frames, in each of which some cells change.

    Args:
        maps: Maps of the first frame, (1, C, h, w) each.
        change: One of ``CHANGES``.
        count: Number of frames.

    Returns:
        The maps of each frame, in the shapes of ``maps``.
    """
    generator = torch.Generator().manual_seed(0)
    frames = [list(maps)]
    size = maps[min(1, len(maps) - 1)].shape[2:]
    for _ in range(count - 1):
        mask = changed_cells(change, size, generator)[None, None].float()
        made = []
        for before in frames[-1]:
            if change == "scattered":
                own = torch.rand(1, 1, *before.shape[2:], generator=generator) < 0.1
            else:
                own = torch.nn.functional.interpolate(mask, before.shape[2:]) > 0
            made.append(before + own * torch.randn(before.shape, generator=generator))
        frames.append(made)
    return frames


def fixed_scores(scores: Sequence[Tensor]) -> list[Tensor]:
    """Make logits in the shapes of a head's; every call returns the same ones."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(x.shape, generator=generator).to(x.dtype).add_(SCORES_MEAN) for x in scores]
