"""Cases of the benchmark of detectors: how proposals and feature maps change in a video."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from detector_runs.frames import Frame, preprocessed, run_frame
from detector_runs.inputs import Given, changing_maps, fixed_scores, grid_of_boxes, moved


@dataclass(frozen=True)
class Case:
    """A video for one row of the table.

    Attributes:
        boxes: Proposals: ``still``, ``moved``, or ``own`` for a one-stage detector.
        changes: Changes of the feature maps, or ``video`` for those of the backbone.
        video: Inputs of each frame.
    """

    boxes: str
    changes: str
    video: Sequence[Given]


def boxes_of(plain: nn.Module, pictures: list[Tensor]) -> dict[str, list[Tensor]]:
    """Make the proposals (N, 4) of each frame, for each kind of proposals."""
    if not hasattr(plain, "roi_head"):
        return {"own": [torch.zeros(0, 4)] * len(pictures)}
    still = grid_of_boxes(pictures[0], plain.rpn_head.test_cfg.max_per_img)
    moving = [still]
    for before, now in zip(pictures, pictures[1:]):
        moving.append(moved(moving[-1], before, now))
    return {"still": [still] * len(pictures), "moved": moving}


def cases(
    plain: nn.Module, pictures: list[Tensor], boxes: Sequence[str], changes: Sequence[str]
) -> Iterator[Case]:
    """Yield a case for each kind of proposals and each kind of changes.

    Args:
        plain: The dense detector.
        pictures: (3, H, W) uint8, one for each frame.
        boxes: Kinds of proposals; empty for all.
        changes: Kinds of changes of the feature maps; empty for the maps of the backbone.
    """
    for name, own in boxes_of(plain, pictures).items():
        if name not in (boxes or (name,)):
            continue
        if not changes:
            yield Case(name, "video", [Given(*each) for each in zip(pictures, own)])
        for change in changes:
            frame = Frame()
            run_frame(plain, Given(pictures[0], own[0]), frame)
            maps = plain.backbone(preprocessed(plain, pictures[0])["inputs"])
            scores = fixed_scores(frame.outs[0])
            yield Case(
                name,
                change,
                [
                    Given(pictures[0], boxes, changed, scores)
                    for boxes, changed in zip(own, changing_maps(maps, change, len(pictures)))
                ],
            )
