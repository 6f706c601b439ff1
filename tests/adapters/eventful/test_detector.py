"""Whole detectors: every part eventful, against the plain detector."""

from __future__ import annotations

import copy
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from mmvitaccel import Always, Threshold, TopK, apply_eventful, apply_eventful_neck
from mmvitaccel.adapters.eventful.detector import EventfulDetectorHandle
from mmvitaccel.core.eventful.frame import Clips, Frame, streams
from mmvitaccel.core.eventful.maps.top_up import TIMES
from mmvitaccel.core.macs.counter import MacsCounter
from mmvitaccel.testing.detectors import (
    SIZE,
    detect,
    efficientvit_retinanet,
    extractor,
    frames,
    rcnn,
    retinanet,
    sample,
)

DETECTORS = {
    "RetinaNet": (retinanet, ("backbone", "neck", "bbox_head")),
    "Faster R-CNN": (rcnn, ("backbone", "neck", "rpn_head", "roi_head")),
    "Mask R-CNN": (lambda: rcnn(mask=True), ("backbone", "neck", "rpn_head", "roi_head")),
    "Cascade": (
        lambda: rcnn(cascade=True, mask=True),
        ("backbone", "neck", "rpn_head", "roi_head"),
    ),
}


def alike(found, expected, tolerance=1e-4):
    """The same instances, whatever the order of those with the same score."""
    assert len(found) == len(expected) and len(found) > 0
    torch.testing.assert_close(found.scores, expected.scores, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(found.bboxes, expected.bboxes, rtol=tolerance, atol=1e-2)
    if "masks" in expected:
        assert (found.masks != expected.masks).float().mean() < 1e-3


@pytest.mark.parametrize(("make", "names"), DETECTORS.values(), ids=DETECTORS)
def test_with_every_cell_let_through_it_is_the_plain_detector(make, names):
    plain, model = make(), make()
    handle = apply_eventful(model, Always(), "tokenwise", parts="all")
    assert tuple(handle.parts) == names and handle.left_out == {}
    for i, picture in enumerate(frames(4)):
        found = detect(model, [picture], [sample("v", i)])
        alike(found[0], detect(plain, [picture], [sample("v", i)])[0])
        assert [part.frames[0].first for part in handle.parts.values()] == [i == 0] * len(names)


@pytest.mark.parametrize(("make", "names"), DETECTORS.values(), ids=DETECTORS)
def test_heads_are_the_plain_ones_on_the_same_levels(make, names):
    model, behind = make(), make()
    own = dict(backbone=TopK(6), neck=TopK(6))
    handle = apply_eventful(model, own, parts="all")
    backbone = apply_eventful(behind.backbone, TopK(6))
    neck = apply_eventful_neck(behind, TopK(6))
    for i, picture in enumerate(frames(6)):
        found = detect(model, [picture], [sample("v", i)])
        alike(found[0], detect(behind, [picture], [sample("v", i)])[0])
    assert backbone.frames[0].passed == handle.parts["backbone"].frames[0].passed
    assert neck.frames[0].passed == handle.parts["neck"].frames[0].passed
    shares = handle.computed()
    assert tuple(shares) == names and all(0 < share < 1 for share in shares.values())


def test_a_repeated_frame_costs_the_patches_alone():
    model = retinanet()
    apply_eventful(model, Threshold(0.0), "tokenwise", parts="all")
    (picture,) = frames(1)
    costs = []
    for i in range(3):
        with MacsCounter(model) as counter:
            detect(model, [picture], [sample("v", i)])
        costs.append(counter.report().by_module)
    assert costs[0]["neck"] > 0 and costs[0]["bbox_head"] > 0
    assert "neck" not in costs[2] and "bbox_head" not in costs[2]


def test_a_detector_with_a_dense_backbone_is_served_from_the_neck_on():
    plain, model = efficientvit_retinanet(), efficientvit_retinanet()
    said = r"RetinaNet, neck, bbox_head are eventful; dense in every frame: backbone: "
    with pytest.warns(UserWarning, match=said):
        handle = apply_eventful(model, Threshold(0.0), parts="all")
    assert list(handle.parts) == ["neck", "bbox_head"] and list(handle.left_out) == ["backbone"]
    for i, picture in enumerate(frames(4)):
        found = detect(model, [picture], [sample("v", i)])
        alike(found[0], detect(plain, [picture], [sample("v", i)])[0])
    handle.policy = Threshold(1e9)
    detect(model, [picture + 1], [sample("v", 9)])
    assert handle.computed() == dict(neck=0.0, bbox_head=0.0)


@pytest.mark.parametrize(
    "parts", [("rpn_head",), ("roi_head",), ("neck", "roi_head"), ("backbone", "rpn_head")], ids=str
)
def test_parts_may_be_chosen(parts):
    plain, model = rcnn(), rcnn()
    policies = {"backbone": Always()} if "backbone" in parts else {}
    handle = apply_eventful(model, policies, "tokenwise", parts=parts)
    assert tuple(handle.parts) == parts
    for i, picture in enumerate(frames(4)):
        found = detect(model, [picture], [sample("v", i)])
        alike(found[0], detect(plain, [picture], [sample("v", i)])[0])
    assert set(handle.left_out.values()) == {"it was not requested"}


def test_streams_batched_interleaved_and_returning():
    videos = {name: list(frames(4, seed=seed)) for seed, name in enumerate("abc")}
    alone = {}
    for name, pictures in videos.items():
        model = rcnn()
        apply_eventful(model, TopK(6), parts="all")
        alone[name] = [detect(model, [p], [sample(name, i)])[0] for i, p in enumerate(pictures)]
    model, batched = rcnn(), rcnn()
    handle = apply_eventful(model, TopK(6), parts="all")
    apply_eventful(batched, TopK(6), parts="all")
    for i in range(4):
        for name in "abc":
            alike(detect(model, [videos[name][i]], [sample(name, i)])[0], alone[name][i])
        order = "abc" if i % 2 else "cab"
        found = detect(batched, [videos[n][i] for n in order], [sample(n, i) for n in order])
        for name, one in zip(order, found):
            alike(one, alone[name][i])
    assert [name[0] for name in handle.streams] == ["a", "b", "c"]
    handle.reset()
    assert handle.streams == [] and handle.memory_bytes == 0


def test_a_policy_that_changes_while_the_video_runs():
    model = rcnn()
    handle = apply_eventful(model, TopK(6), parts="all")
    passed = []
    for i, picture in enumerate(frames(5)):
        if i == 2:
            handle.policy.k = 3
        if i == 3:
            handle.policy = TopK(48)
        detect(model, [picture], [sample("v", i)])
        passed.append(handle.parts["backbone"].frames[0].passed[0][0])
        assert passed[-1] <= handle.parts["neck"].frames[0].passed[0][0] <= TIMES * passed[-1]
    assert passed == [48, 6, 3, 48, 48]


def test_a_neck_passes_what_clearly_changed_unless_it_has_a_policy_of_its_own():
    scene, other = frames(2)
    passed = []
    for policy in (TopK(3), dict(backbone=TopK(3), neck=TopK(3))):
        model = rcnn()
        handle = apply_eventful(model, policy, parts="all")
        for i, picture in enumerate((scene, scene, other)):
            detect(model, [picture], [sample("v", i)])
        assert set(handle.parts["backbone"].frames[0].passed[0]) == {3}
        passed.append(handle.parts["neck"].frames[0].passed[0][0])
    assert 3 < passed[0] <= 3 * TIMES and passed[1] == 3


def test_a_size_a_flip_a_cut_and_a_new_video_start_clean():
    model = rcnn()
    handle = apply_eventful(model, TopK(6), parts="all")

    def firsts(*args, size=SIZE, **meta):
        (picture,) = frames(1, size=size)
        detect(model, [picture], [sample(*args, img_shape=size, **meta)])
        return {part.frames[0].first for part in handle.parts.values()}

    assert firsts("v", 0) == {True} and firsts("v", 1) == {False}
    assert firsts("v", 2, size=(64, 96)) == {True}
    assert firsts("v", 2, flip=True) == {True} and firsts("v", 2) == {False}
    assert firsts("v", 3, scene_cut=True) == {True} and firsts("w", 0) == {True}
    assert firsts("v", 1) == {True}, "an earlier frame"
    with pytest.warns(UserWarning, match="the images have no video_id"):
        assert firsts(None, None) == {True}


def test_copies_and_training():
    model = rcnn()
    handle = apply_eventful(model, TopK(6), parts="all")
    pictures = list(frames(3))
    detect(model, pictures[:1], [sample("v", 0)])
    copied = copy.deepcopy(model)
    own = EventfulDetectorHandle(copied)
    assert own.streams == [] and list(own.parts) == list(handle.parts)
    expected = detect(model, pictures[1:2], [sample("v", 1)])[0]
    fresh = rcnn()
    apply_eventful(fresh, TopK(6), parts="all")
    for i in (1, 2):
        first = detect(fresh, pictures[i : i + 1], [sample("v", i)])[0]
        alike(detect(copied, pictures[i : i + 1], [sample("v", i)])[0], first)
    assert [f.first for f in handle.parts["roi_head"].frames] == [False] and len(expected)
    model.train()
    assert handle.streams == []
    x = torch.rand(1, 3, *SIZE)
    for features in (model.extract_feat(x), model.rpn_head(model.extract_feat(x))[0]):
        assert all(level.requires_grad for level in features)


def test_frames_of_one_clip_in_a_batch_go_in_turn():
    one, batched = rcnn(mask=True), rcnn(mask=True)
    for model in (one, batched):
        apply_eventful(model, TopK(6), parts="all")
    pictures = list(frames(3))
    expected = [detect(one, [p], [sample("v", i)])[0] for i, p in enumerate(pictures)]
    data = batched.data_preprocessor(
        dict(inputs=pictures, data_samples=[sample(None, None) for _ in pictures]), False
    )
    clip = Clips([[Frame("v", i) for i in range(3)]])
    with torch.no_grad(), streams(clip):
        found = batched.predict(data["inputs"], data["data_samples"])
    for ours, theirs in zip(found, expected):
        alike(ours.pred_instances, theirs)
    parts = EventfulDetectorHandle(batched).parts.values()
    assert [[f.first for f in part.frames] for part in parts] == [[True, False, False]] * 4


def test_threads_compute_streams_side_by_side():
    videos = {name: list(frames(4, seed=seed)) for seed, name in enumerate("abc")}

    def run(model, name):
        return [detect(model, [p], [sample(name, i)])[0] for i, p in enumerate(videos[name])]

    alone = {}
    for name in videos:
        model = rcnn()
        apply_eventful(model, TopK(6), parts="all")
        alone[name] = run(model, name)
    model = rcnn()
    handle = apply_eventful(model, TopK(6), parts="all")
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda name: run(model, name), videos))
    for name, results in zip(videos, found):
        for ours, expected in zip(results, alone[name]):
            alike(ours, expected)
    assert sorted(name[0] for name in handle.streams) == ["a", "b", "c"]


def test_removing_gives_the_detector_back():
    model, bare = rcnn(mask=True), rcnn(mask=True)
    handle = apply_eventful(model, TopK(6), parts="all")
    assert handle.attached
    handle.remove()
    handle.remove()
    assert [type(m) for m in model.modules()] == [type(m) for m in bare.modules()]
    assert not handle.attached and not model._forward_pre_hooks
    with pytest.raises(
        ValueError, match=r"no part of this .*MaskRCNN is eventful; use apply_eventful"
    ):
        EventfulDetectorHandle(model)


def test_a_neck_that_has_it_already_is_taken_over():
    model = retinanet()
    before = apply_eventful_neck(model, TopK(3))
    with pytest.warns(UserWarning, match=r"EventfulNeck was on this .*TopK\(k=3\) and is replaced"):
        handle = apply_eventful(model, TopK(6), parts="all")
    assert not before.attached and handle.attached


def test_bad_input_is_named():
    model = retinanet()
    with pytest.raises(ValueError, match=r"RetinaNet has no 'roi_head', 'head'; give 'all' or some "
                       r"of its backbone, neck, bbox_head"):  # fmt: skip
        apply_eventful(model, TopK(6), parts=("neck", "roi_head", "head"))
    with pytest.raises(ValueError, match=r"parts=\(\) must be .*; give 'all' or names"):
        apply_eventful(model, TopK(6), parts=())
    with pytest.raises(ValueError, match=r"policy is given for 'rpn', but the parts are neck"):
        apply_eventful(model, {"rpn": TopK(6)}, parts="neck")
    with pytest.raises(ValueError, match="policy has no entry for 'backbone'"):
        apply_eventful(model, {"neck": TopK(6)}, parts="all")
    with pytest.raises(TypeError, match="policy=3 has no method select"):
        apply_eventful(model, 3, parts="all")
    norm = dict(norm_cfg=dict(type="GN", num_groups=4))
    with pytest.raises(ValueError, match=r"not supported: bbox_head: .*gn is a GroupNorm.*: backb"):
        apply_eventful(retinanet(**norm), TopK(6), parts="bbox_head")
    with pytest.warns(UserWarning, match=r"backbone, neck are eventful; dense .*GroupNorm"):
        apply_eventful(retinanet(**norm), TopK(6), parts="all")
    generic = extractor(type="GenericRoIExtractor")
    del generic["finest_scale"]
    with pytest.raises(ValueError, match=r"its bbox_roi_extractor is a .*GenericRoIExtractor"):
        apply_eventful(rcnn(bbox_roi_extractor=generic), TopK(6), parts=("roi_head",))
    with pytest.raises(ValueError, match=r"no part of .*Linear is supported: it has none"):
        apply_eventful(torch.nn.Linear(1, 1), TopK(6), parts="all")
    assert not [module for module in model.modules() if "_mmvitaccel_link" in module.__dict__]


def test_nothing_is_warned_of_where_all_parts_are_served():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        apply_eventful(retinanet(), TopK(6), parts="all")
