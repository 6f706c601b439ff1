"""The inputs of the benchmark of detectors."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture
def inputs(load_benchmark):
    return load_benchmark("detector_runs/inputs")


def test_boxes_over_changed_pixels_move(inputs):
    picture = torch.zeros(3, 72, 128, dtype=torch.uint8)
    boxes = inputs.grid_of_boxes(picture, 50)
    assert 25 <= len(boxes) <= 60 and len((boxes[:, 2] - boxes[:, 0]).unique()) == 5
    now = picture.clone()
    now[:, :9, :9] = 255
    shift = inputs.moved(boxes, picture, now) - boxes
    assert 0 < (shift == 2).all(1).sum() < len(boxes)
    assert ((shift == 2).all(1) | (shift == 0).all(1)).all()
    assert torch.equal(inputs.moved(boxes, now, now), boxes)


@pytest.mark.parametrize(
    ("change", "low", "high"),
    [("rectangle", 0.07, 0.13), ("scattered", 0.07, 0.13), ("rectangles", 0.08, 0.2),
     ("everything", 1, 1), ("nothing", 0, 0)],
)  # fmt: skip
def test_maps_change_as_told(inputs, change, low, high):
    maps = [torch.zeros(1, 4, 100, 168), torch.zeros(1, 4, 50, 84), torch.zeros(1, 4, 25, 42)]
    first, second, third = inputs.changing_maps(maps, change, 3)
    assert all(torch.equal(a, b) for a, b in zip(maps, first))
    for before, now in ((first, second), (second, third)):
        share = (before[1] != now[1]).any(1).float().mean().item()
        assert low <= share <= high
        # each level changes in the same part of the picture; small cells are hit more often
        assert low <= (before[0] != now[0]).any(1).float().mean().item() <= high
    scores = inputs.fixed_scores([torch.zeros(1, 90, 50, 84)])
    assert torch.equal(scores[0], inputs.fixed_scores(scores)[0])
    assert 0.0005 < (scores[0].sigmoid() > 0.05).float().mean() < 0.002
