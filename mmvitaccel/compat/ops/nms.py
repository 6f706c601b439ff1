"""Non-maximum suppression with mmcv's arguments: hard (torchvision) and soft (torch)."""

from __future__ import annotations

import torch
import torchvision

from mmvitaccel.compat.ops.precision import widen

NAIVE, LINEAR, GAUSSIAN = 0, 1, 2


def nms(
    boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float, offset: int
) -> torch.Tensor:
    """Return the indices of the boxes to keep, best score first.

    Args:
        boxes: (N, 4) as x1, y1, x2, y2 in pixels.
        scores: (N,).
        iou_threshold: A box is dropped when its IoU with a better one is greater.
        offset: 0, or 1 where a box's width is x2 - x1 + 1.

    Returns:
        (K,) int64 indices.
    """
    boxes = widen(boxes)
    if offset:
        # A width of x2 - x1 + 1, in areas and in overlaps alike, is that of a box with x2 + 1.
        boxes = torch.cat((boxes[:, :2], boxes[:, 2:] + offset), dim=1)
    return torchvision.ops.nms(boxes, scores.to(boxes.dtype), iou_threshold)


def softnms(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    dets: torch.Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> torch.Tensor:
    """Lower the scores of overlapping boxes instead of dropping them (Bodla et al., ICCV 2017).

    The best remaining box is taken, the scores of the rest are multiplied by a weight that falls
    with the overlap, and those that fall below ``min_score`` leave.

    Args:
        boxes: (N, 4) as x1, y1, x2, y2 in pixels.
        scores: (N,).
        dets: (N, 5); its first K rows are filled with the kept boxes and their lowered scores.
        iou_threshold: Overlap from which the linear and naive weights lower a score.
        sigma: Width of the Gaussian weight exp(-IoU^2 / sigma).
        min_score: Scores below it leave.
        method: 0 naive (weight 0), 1 linear (weight 1 - IoU), 2 Gaussian.
        offset: 0, or 1 where a box's width is x2 - x1 + 1.

    Returns:
        (K,) int64 indices of the kept boxes in the order in which they were taken.
    """
    left_boxes, left_scores = widen(boxes), widen(scores)
    left = torch.arange(len(boxes), device=boxes.device)
    taken = []
    while len(left):
        best = left_scores.argmax()
        dets[len(taken), :4] = left_boxes[best]
        dets[len(taken), 4] = left_scores[best]
        taken.append(left[best])

        overlap = _iou(left_boxes[best], left_boxes, offset)
        if method == GAUSSIAN:
            weight = torch.exp(-overlap.square() / sigma)
        else:
            lowered = 1 - overlap if method == LINEAR else torch.zeros_like(overlap)
            weight = torch.where(overlap >= iou_threshold, lowered, torch.ones_like(overlap))
        left_scores = left_scores * weight

        stays = left_scores >= min_score
        stays[best] = False
        left_boxes, left_scores, left = left_boxes[stays], left_scores[stays], left[stays]
    return torch.stack(taken) if taken else left


def _iou(box: torch.Tensor, boxes: torch.Tensor, offset: int) -> torch.Tensor:
    """Intersection over union of one box (4,) with each of (N, 4); shape (N,)."""
    top_left = torch.maximum(box[:2], boxes[:, :2])
    bottom_right = torch.minimum(box[2:], boxes[:, 2:])
    intersection = (bottom_right - top_left + offset).clamp(min=0).prod(dim=1)
    areas = (boxes[:, 2:] - boxes[:, :2] + offset).prod(dim=1)
    area = (box[2:] - box[:2] + offset).prod()
    return intersection / (area + areas - intersection)
