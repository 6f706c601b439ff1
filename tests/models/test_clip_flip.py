"""Flips of whole clips: pictures and boxes, padding apart."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("mmdet")
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from mmvitaccel.models import ClipFlip

SIZE = (4, 6)  # of what is shown, in pictures of 8 x 8


def batch(count):
    """Pictures in which the box (1, 0, 3, 1) is bright."""
    inputs, samples = torch.zeros(count, 3, 8, 8), []
    inputs[:, :, 0, 1:3] = 1
    for _ in range(count):
        boxes = torch.tensor([[1.0, 0.0, 3.0, 1.0]])
        sample = DetDataSample(metainfo=dict(img_shape=SIZE))
        sample.gt_instances = InstanceData(bboxes=boxes.clone())
        sample.ignored_instances = InstanceData(bboxes=boxes.clone())
        samples.append(sample)
    return inputs, samples


def boxes_of(picture):
    """The box of what is bright."""
    rows, columns = torch.where(picture[0] > 0)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@pytest.mark.parametrize("direction", ["horizontal", "vertical", "diagonal"])
def test_boxes_stay_on_what_they_show(direction):
    given, samples = batch(4)
    flipped, samples = ClipFlip(2, [1.0], [direction])(given, samples)
    assert torch.equal(given, batch(4)[0])  # the loader's own
    for picture, sample in zip(flipped, samples):
        for part in (sample.gt_instances, sample.ignored_instances):
            assert part.bboxes.tolist() == [boxes_of(picture)]
        assert picture[:, SIZE[0] :].sum() == 0 and picture[:, :, SIZE[1] :].sum() == 0
    expected = {"horizontal": [3, 0, 5, 1], "vertical": [1, 3, 3, 4], "diagonal": [3, 3, 5, 4]}
    assert samples[0].gt_instances.bboxes.tolist() == [expected[direction]]


def test_frames_of_a_clip_are_flipped_alike():
    torch.manual_seed(0)
    flip = ClipFlip(2, [0.25, 0.25, 0.25], ["horizontal", "vertical", "diagonal"])
    flipped, _ = flip(*batch(64))
    assert torch.equal(flipped[::2], flipped[1::2])
    assert len({tuple(map(int, boxes_of(picture))) for picture in flipped}) == 4


def test_refusals():
    with pytest.raises(ValueError, match="a batch of 5 cannot be split into clips of 2 frames"):
        ClipFlip()(*batch(5))
    inputs, samples = batch(2)
    samples[0].gt_instances.masks = torch.zeros(1, 8, 8)
    with pytest.raises(ValueError, match="samples have masks, which are not supported"):
        ClipFlip()(inputs, samples)
    for prob, direction in (([0.5], ["sideways"]), ([0.6, 0.6], ["horizontal", "vertical"])):
        with pytest.raises(ValueError, match="give one probability for each direction"):
            ClipFlip(2, prob, direction)
