"""Hard and soft NMS against hand-computed cases, torchvision and a slow loop."""

from __future__ import annotations

import math

import pytest
import torch
import torchvision

from mmvitaccel.compat.ops.nms import GAUSSIAN, LINEAR, NAIVE, nms, softnms


def random_boxes(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 40
    boxes = torch.cat((corner, corner + torch.rand(count, 2, generator=generator) * 20), dim=1)
    return boxes, torch.rand(count, generator=generator)


def iou(a: list[float], b: list[float], offset: int) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]) + offset)
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]) + offset)
    area_a = (a[2] - a[0] + offset) * (a[3] - a[1] + offset)
    area_b = (b[2] - b[0] + offset) * (b[3] - b[1] + offset)
    return width * height / (area_a + area_b - width * height)


def slow_nms(boxes: torch.Tensor, scores: torch.Tensor, threshold: float, offset: int) -> list[int]:
    kept: list[int] = []
    for i in scores.argsort(descending=True).tolist():
        if all(iou(boxes[i].tolist(), boxes[j].tolist(), offset) <= threshold for j in kept):
            kept.append(i)
    return kept


def slow_softnms(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> tuple[list[int], list[float]]:
    left = dict(enumerate(scores.tolist()))
    kept, kept_scores = [], []
    while left:
        best = max(left, key=left.__getitem__)
        kept.append(best)
        kept_scores.append(left.pop(best))
        for i in list(left):
            overlap = iou(boxes[best].tolist(), boxes[i].tolist(), offset)
            if method == GAUSSIAN:
                left[i] *= math.exp(-overlap * overlap / sigma)
            elif overlap >= threshold:
                left[i] *= 1 - overlap if method == LINEAR else 0
            if left[i] < min_score:
                del left[i]
    return kept, kept_scores


def test_offset_one_changes_which_box_survives() -> None:
    # Without the offset the overlap is 1 x 2 of 2 x 2 each: IoU 2 / 6 = 0.333. With it, widths are
    # 3 and the overlap is 2 x 3 of 3 x 3 each: IoU 6 / 12 = 0.5.
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 2.0]])
    scores = torch.tensor([0.5, 0.9])
    assert nms(boxes, scores, 0.4, 0).tolist() == [1, 0]
    assert nms(boxes, scores, 0.4, 1).tolist() == [1]


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.8])
def test_nms_agrees_with_a_loop(threshold: float, offset: int) -> None:
    boxes, scores = random_boxes(60)
    assert nms(boxes, scores, threshold, offset).tolist() == slow_nms(
        boxes, scores, threshold, offset
    )


def test_nms_without_offset_is_torchvisions() -> None:
    boxes, scores = random_boxes(200, seed=1)
    torch.testing.assert_close(
        nms(boxes, scores, 0.5, 0), torchvision.ops.nms(boxes, scores, 0.5), rtol=0, atol=0
    )


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16, torch.float64])
def test_nms_takes_other_precisions(dtype: torch.dtype) -> None:
    boxes, scores = random_boxes(40, seed=2)
    boxes, scores = boxes.to(dtype), scores.to(dtype)
    expected = torchvision.ops.nms(boxes.double(), scores.double(), 0.5)
    assert nms(boxes, scores, 0.5, 0).tolist() == expected.tolist()
    # Under autocast the boxes may be wider than the scores.
    assert nms(boxes.float(), scores, 0.5, 0).tolist() == expected.tolist()


def test_nms_of_nothing_is_nothing() -> None:
    kept = nms(torch.empty(0, 4), torch.empty(0), 0.5, 1)
    assert kept.shape == (0,)
    assert kept.dtype == torch.int64


def test_softnms_by_hand() -> None:
    # IoU of the first two is 1 / 3, the third is apart.
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 2.0], [9.0, 9.0, 10.0, 10.0]])
    scores = torch.tensor([0.9, 0.6, 0.5])
    dets = torch.zeros(3, 5)
    kept = softnms(boxes, scores, dets, 0.3, 0.5, 1e-3, LINEAR, 0)
    assert kept.tolist() == [0, 2, 1]
    torch.testing.assert_close(dets[:, 4], torch.tensor([0.9, 0.5, 0.6 * 2 / 3]))
    torch.testing.assert_close(dets[:, :4], boxes[kept])
    assert scores.tolist() == pytest.approx([0.9, 0.6, 0.5])  # the input is left alone


@pytest.mark.parametrize("method", [NAIVE, LINEAR, GAUSSIAN])
@pytest.mark.parametrize("offset", [0, 1])
def test_softnms_agrees_with_a_loop(method: int, offset: int) -> None:
    boxes, scores = random_boxes(40, seed=3)
    dets = torch.full((40, 5), -7.0)
    kept = softnms(boxes, scores, dets, 0.3, 0.5, 0.05, method, offset)
    expected, expected_scores = slow_softnms(boxes, scores, 0.3, 0.5, 0.05, method, offset)
    assert 0 < len(expected) < 40
    assert kept.tolist() == expected
    torch.testing.assert_close(dets[: len(kept), 4], torch.tensor(expected_scores))
    torch.testing.assert_close(dets[: len(kept), :4], boxes[kept])
    assert (dets[len(kept) :] == -7).all()


def test_softnms_of_nothing_is_nothing() -> None:
    kept = softnms(torch.empty(0, 4), torch.empty(0), torch.empty(0, 5), 0.3, 0.5, 0.05, LINEAR, 0)
    assert kept.shape == (0,)
    assert kept.dtype == torch.int64


@pytest.mark.parametrize("method", ["naive", "linear", "gaussian"])
def test_mmcv_soft_nms_runs(method: str) -> None:
    ops = pytest.importorskip("mmcv.ops")
    boxes, scores = random_boxes(30, seed=4)
    dets, kept = ops.soft_nms(boxes, scores, 0.3, 0.5, 0.05, method)
    number = {"naive": NAIVE, "linear": LINEAR, "gaussian": GAUSSIAN}[method]
    expected, expected_scores = slow_softnms(boxes, scores, 0.3, 0.5, 0.05, number, 0)
    assert kept.tolist() == expected
    torch.testing.assert_close(dets[:, 4], torch.tensor(expected_scores))


def test_mmcv_batched_nms_keeps_classes_apart() -> None:
    ops = pytest.importorskip("mmcv.ops")
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0]] * 3)
    scores, classes = torch.tensor([0.5, 0.9, 0.7]), torch.tensor([0, 0, 1])
    dets, kept = ops.batched_nms(boxes, scores, classes, {"type": "nms", "iou_threshold": 0.5})
    assert kept.tolist() == [1, 2]
    torch.testing.assert_close(dets, torch.cat((boxes[:2], torch.tensor([[0.9], [0.7]])), dim=1))
