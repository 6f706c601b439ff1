"""Whole detectors under test-time augmentation, several scales, and parts with own policies."""

from __future__ import annotations

import copy

import pytest
import torch
from mmengine.config import ConfigDict

from mmvitaccel import Always, TopK, apply_eventful
from mmvitaccel.adapters.eventful.detector import EventfulDetectorHandle
from mmvitaccel.models.box_tta import BoxTTAModel
from mmvitaccel.testing.detectors import SIZE, detect, frames, rcnn, retinanet, sample

SMALLER = (72, 96)
MERGED = ConfigDict(nms=dict(type="nms", iou_threshold=0.5), max_per_img=20)
VIEWS = ((1.0, False), (1.0, True), (0.75, False))  # scale, flipped from left to right


def view(picture, number, scale, flip):
    """A picture and its data sample, as a pipeline of test-time augmentation gives them."""
    if scale != 1:
        picture = torch.nn.functional.interpolate(picture[None], scale_factor=scale)[0]
    shape = tuple(picture.shape[1:])
    direction = dict(flip=flip, flip_direction="horizontal" if flip else None)
    meta = dict(img_shape=shape, scale_factor=(scale, scale), **direction)
    return picture.flip(2) if flip else picture, sample("v", number, **meta)


@pytest.mark.parametrize("make", [retinanet, lambda: rcnn(mask=True)], ids=["RetinaNet", "Mask"])
def test_every_view_is_a_stream_of_its_own(make):
    """What is merged is what is merged of models that see one view each, frame by frame."""
    model = BoxTTAModel(tta_cfg=MERGED, module=make()).eval()
    handle = apply_eventful(model.module, TopK(6), parts="all")
    alone = []
    for _ in VIEWS:
        alone.append(make())
        apply_eventful(alone[-1], TopK(6), parts="all")
    for i, picture in enumerate(frames(4)):
        views = [view(picture, i, *each) for each in VIEWS]
        data = dict(inputs=[[x] for x, _ in views], data_samples=[[s] for _, s in views])
        with torch.no_grad():
            found = model.test_step(copy.deepcopy(data))[0].pred_instances
            single = []
            for one, (x, s) in zip(alone, views):
                single += one.test_step(dict(inputs=[x.clone()], data_samples=[copy.deepcopy(s)]))
        expected = model._merge_single_sample(single).pred_instances
        torch.testing.assert_close(found.scores, expected.scores, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found.bboxes, expected.bboxes, rtol=1e-4, atol=1e-2)
        for part in handle.parts.values():
            assert part.frames[0].first == (i == 0)
    assert len(handle.streams) == len(VIEWS)


def test_scales_side_by_side_are_those_of_a_detector_each():
    both = rcnn()
    apply_eventful(both, TopK(6), parts="all")
    single = {size: rcnn() for size in (SIZE, SMALLER)}
    for model in single.values():
        apply_eventful(model, TopK(6), parts="all")
    videos = {size: list(frames(4, size=size)) for size in single}
    for i in range(4):
        for size, model in single.items():
            given = [videos[size][i]], [sample(f"v{size}", i, img_shape=size)]
            found, expected = detect(both, *given)[0], detect(model, *given)[0]
            torch.testing.assert_close(found.scores, expected.scores, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(found.bboxes, expected.bboxes, rtol=1e-4, atol=1e-2)


def test_streams_that_come_and_go_start_clean():
    """More videos than are remembered, in turn: each that returns is a first frame again."""
    model, plain = rcnn(), rcnn()
    handle = apply_eventful(model, Always(), "tokenwise", parts="all", max_streams=1)
    videos = {name: list(frames(4, seed=seed)) for seed, name in enumerate("ab")}
    with pytest.warns(UserWarning, match="was evicted"):
        for i, name in enumerate("aabbaabb"):
            number = i // 4 * 2 + i % 2
            given = [videos[name][number]], [sample(name, number)]
            found, expected = detect(model, *given)[0], detect(plain, *given)[0]
            torch.testing.assert_close(found.scores, expected.scores, rtol=1e-4, atol=1e-4)
            assert {part.frames[0].first for part in handle.parts.values()} == {i % 2 == 0}
    assert len(handle.streams) == 1


def test_a_policy_of_each_part_changes_while_the_video_runs():
    model = retinanet()
    handle = apply_eventful(model, dict(backbone=TopK(12), neck=TopK(6)), parts="all")
    passed = []
    for i, picture in enumerate(frames(5)):
        if i == 2:
            handle.parts["neck"].policy = TopK(3)
        if i == 4:
            handle.parts["backbone"].policy.k = 5
        detect(model, [picture], [sample("v", i)])
        parts = EventfulDetectorHandle(model).parts
        passed.append(tuple(parts[name].frames[0].passed[0][0] for name in ("backbone", "neck")))
    assert passed == [(48, 48), (12, 6), (12, 3), (12, 3), (5, 3)]
