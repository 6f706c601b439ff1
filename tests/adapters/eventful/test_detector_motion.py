"""Whole detectors behind a moving camera, against the plain detector on the view of the scene."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from mmengine.config import Config

from mmvitaccel import (
    Always,
    Threshold,
    TopK,
    Translation,
    apply_eventful,
    apply_eventful_neck,
)
from mmvitaccel.core.eventful.frame import Clips, Frame, streams
from mmvitaccel.hooks.eventful_hook import EventfulHook
from mmvitaccel.models.wrappers.eventful import attach_eventful
from mmvitaccel.testing import stills
from mmvitaccel.testing.aligned import NaiveScene, aligned_vitdet
from mmvitaccel.testing.detectors import detect, efficientvit_retinanet, rcnn, retinanet, sample

PATCH, SIDE, ROOM = 16, 160, 100
GRID = (SIDE // PATCH, SIDE // PATCH)
DETECTORS = {
    "RetinaNet": retinanet,
    "Faster R-CNN": rcnn,
    "Mask R-CNN": lambda: rcnn(mask=True),
    "Cascade": lambda: rcnn(cascade=True, mask=True),
}
ALL = dict(parts="all", motion=Translation(reach=0.9))


def still(seed=0):
    """Structure of every size, with room around a frame, (3, height, width)."""
    return (stills.still(SIDE + 2 * ROOM, seed)[0] * 60 + 120).clamp(0, 255)


def pan(step, frames, seed=0):
    whole = still(seed)
    for t in range(frames):
        y, x = ROOM + t * step[0], ROOM + t * step[1]
        yield whole[:, y : y + SIDE, x : x + SIDE].clone(), (t * step[0], t * step[1])


def named(video, number, **meta):
    size = (SIDE, SIDE)
    return sample(video, number, **{**dict(img_shape=size, ori_shape=size), **meta})


def on_the_view(plain, first, beyond):
    """A copy of a plain detector that is given a view: its anchors and regions lie on the frame."""
    model = copy.deepcopy(plain)
    model.backbone = aligned_vitdet(plain.backbone, GRID, first)
    head = model.rpn_head if hasattr(model, "rpn_head") else model.bbox_head
    priors = head.prior_generator.grid_priors
    by = torch.tensor([beyond[1], beyond[0]] * 2)
    head.prior_generator.grid_priors = lambda *args, **kwargs: [
        each - by[: each.shape[1]] for each in priors(*args, **kwargs)
    ]
    for module in model.modules():
        if type(module).__name__ == "SingleRoIExtractor":
            module.forward = functools.partial(_moved, module.forward, by)
    return model


def _moved(forward, by, x, rois, *args, **kwargs):
    return forward(x, torch.cat((rois[:, :1], rois[:, 1:] + by), 1), *args, **kwargs)


def alike(found, expected):
    assert len(found) == len(expected) > 0
    torch.testing.assert_close(found.scores, expected.scores, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found.bboxes, expected.bboxes, rtol=1e-3, atol=5e-2)
    if "masks" in expected:
        assert (found.masks != expected.masks).float().mean() < 1e-3


def keeping_all(model):
    """A detector whose choice of boxes depends on no other box."""
    most = dict(score_thr=0.0, nms=dict(type="nms", iou_threshold=1.0), min_bbox_size=-1.0)
    for name, count in (("rpn_head", 300), ("bbox_head", 2000), ("roi_head", 2000)):
        head = getattr(model, name, None)
        if head is not None:
            head.test_cfg = Config(dict(most, nms_pre=300, max_per_img=count, mask_thr_binary=0.5))
    return model


@pytest.mark.parametrize("step", [(3, -7), (16, 16)], ids=str)
@pytest.mark.parametrize("make", DETECTORS.values(), ids=DETECTORS)
def test_with_every_token_it_is_the_plain_detector_on_the_view(make, step):
    plain, model, naive = make(), make(), NaiveScene(PATCH, ROOM)
    handle = apply_eventful(model, Always(), "tokenwise", **ALL)
    for i, (picture, offset) in enumerate(pan(step, 6)):
        found = detect(model, [picture], [named("v", i)])[0]
        (info,) = handle.frames
        assert info.camera.offset == offset
        view = naive.see((picture[None] - 120) / 60, offset)[0] * 60 + 120
        beyond = tuple(o - PATCH * f for o, f in zip(offset, naive.first))
        assert info.camera.beyond == beyond
        aligned = on_the_view(plain, naive.first, beyond)
        alike(found, detect(aligned, [view], [named("v", i)])[0])
    handle.remove()
    alike(
        detect(model, [picture], [named("v", 0)])[0], detect(plain, [picture], [named("v", 0)])[0]
    )


@pytest.mark.parametrize("name", ["RetinaNet", "Faster R-CNN", "Mask R-CNN"])
def test_within_a_patch_boxes_of_a_still_follow_the_camera_and_cost_nothing(name):
    """No reference is needed: what does not touch the frame's edge is where it was, moved."""
    model = keeping_all(DETECTORS[name]())
    handle = apply_eventful(model, Threshold(1e-3), "tokenwise", **ALL)
    for i, (picture, (down, right)) in enumerate(pan((2, -3), 5)):
        found = detect(model, [picture], [named("v", i)])[0]
        if i == 0:
            first = found
            continue
        shares = handle.computed()
        assert shares.pop("roi_head", 0) < 1 and not any(shares.values())
        moved = first.bboxes - first.bboxes.new_tensor([right, down, right, down])
        seen = (torch.cat((first.bboxes, moved), 1) - SIDE / 2).abs().amax(1) < SIDE / 2 - 1
        off = (found.bboxes[:, None] - moved[seen]).abs().amax(2)
        off = off + (found.scores[:, None] - first.scores[seen]).abs()
        follow = (off.amin(0) < 1e-2).float().mean()
        # A box within the frame may come of a proposal that its edge cuts
        assert seen.sum() > 20 and follow >= (0.4 if "roi_head" in handle.parts else 1)
    assert handle.frames[0].camera.offset == (8, -12)


def test_proposals_that_lie_where_they_were_in_the_scene_keep_their_result():
    """But for those that the frame's edge cuts, elsewhere in each frame."""
    model, before = keeping_all(rcnn()), None
    handle = apply_eventful(model, Threshold(1e-3), "tokenwise", **ALL)
    for i, (picture, (down, right)) in enumerate(pan((2, -3), 6)):
        detect(model, [picture], [named("v", i)])
        head = handle.parts["roi_head"]
        boxes = head.remembered(head.streams[0])[0].results["_bbox_forward 0"].boxes[:, 1:]
        on_frame = boxes - boxes.new_tensor([right, down, right, down])
        inner = ((on_frame > 1) & (on_frame < SIDE - 1)).all(1)
        if i > 0:
            distance = (boxes[inner, None] - before).abs().amax(2).amin(1)
            same = int((distance < 1e-3).sum())
            assert same > 20 and head.frames[0].computed <= 1 - (same - 1) / len(boxes)
        before = boxes


def test_a_view_that_moves_computes_what_came_into_it():
    model = rcnn()
    handle = apply_eventful(model, Threshold(0.0), "tokenwise", **ALL)
    shares = []
    for i, (picture, _) in enumerate(pan((8, 0), 5)):
        detect(model, [picture], [named("v", i)])
        shares.append(handle.computed())
    assert shares[2]["neck"] > 0 and shares[3]["neck"] == 0
    assert handle.parts["rpn_head"].frames[0].camera is None


@pytest.mark.parametrize("make", [retinanet, lambda: rcnn(mask=True)], ids=["RetinaNet", "Mask"])
def test_streams_of_a_batch_have_cameras_of_their_own(make):
    model, alone = make(), make()
    apply_eventful(model, TopK(30), **ALL)
    apply_eventful(alone, TopK(30), **ALL)
    for i, ((a, _), (b, _)) in enumerate(zip(pan((5, 0), 5), pan((0, -7), 5, seed=1))):
        both = detect(model, [a, b], [named("a", i), named("b", i)])
        for name, picture, found in (("a", a, both[0]), ("b", b, both[1])):
            alike(found, detect(alone, [picture], [named(name, i)])[0])


def test_a_fixed_camera_is_the_same_bit_by_bit():
    model, plain = rcnn(mask=True), rcnn(mask=True)
    apply_eventful(model, TopK(30), **ALL)
    apply_eventful(plain, TopK(30), parts="all")
    generator = torch.Generator().manual_seed(0)
    ((picture, _),) = pan((0, 0), 1)
    for i in range(4):
        picture[:, 40:64, 40:64] = torch.randint(0, 256, (3, 24, 24), generator=generator)
        found = detect(model, [picture], [named("v", i)])[0]
        expected = detect(plain, [picture], [named("v", i)])[0]
        assert torch.equal(found.bboxes, expected.bboxes)
        assert torch.equal(found.scores, expected.scores)
        assert torch.equal(found.masks, expected.masks)


def test_beyond_its_reach_and_on_request_all_parts_are_whole():
    model, plain = rcnn(), rcnn()
    handle = apply_eventful(model, TopK(30), parts="all", motion=Translation(reach=0.2))
    whole = []
    for i, (picture, _) in enumerate(pan((16, 0), 6)):
        if i == 5:
            handle.refresh()
        found = detect(model, [picture], [named("v", i)])[0]
        if handle.frames[0].refreshed:
            whole.append(i)
            assert all(part.frames[0].refreshed for part in handle.parts.values())
            alike(found, detect(plain, [picture], [named("v", i)])[0])
    assert whole == [3, 5]


@pytest.mark.parametrize("parts", [None, "backbone"])
def test_the_backbone_alone_gives_maps_of_the_frame_to_plain_parts(parts):
    model, plain = rcnn(), rcnn()
    _, handle = attach_eventful(
        model, dict(type="Always"), parts=parts, motion=dict(type="Translation", reach=0.9)
    )
    naive = NaiveScene(PATCH, ROOM)
    for i, (picture, offset) in enumerate(pan((5, -7), 5)):
        found = detect(model, [picture], [named("v", i)])[0]
        assert handle.frames[0].camera.beyond == (0, 0)
        view = naive.see((picture[None] - 120) / 60, offset)[0] * 60 + 120
        aligned = copy.deepcopy(plain)
        aligned.backbone = aligned_vitdet(plain.backbone, GRID, naive.first, offset)
        alike(found, detect(aligned, [view], [named("v", i)])[0])


def test_refusals():
    motion = Translation()
    for parts, who in ((("backbone", "neck"), "bbox_head"), ("bbox_head", "backbone, neck")):
        with pytest.raises(ValueError, match=rf"RetinaNet {who} would be computed whole: with mot"):
            apply_eventful(retinanet(), TopK(5), parts=parts, motion=motion)
    with (
        pytest.warns(UserWarning, match="dense in every frame: backbone"),
        pytest.raises(ValueError, match=r"RetinaNet backbone would be computed whole: with motion"),
    ):
        apply_eventful(efficientvit_retinanet(), TopK(5), parts="all", motion=motion)
    with pytest.raises(TypeError, match=r"motion='fast' has no methods start and follow; give Tr"):
        apply_eventful(retinanet(), TopK(5), parts="all", motion="fast")
    with pytest.raises(ValueError, match=r"motion=Translation\(.*kv_pool_size=2 averages keys"):
        apply_eventful(retinanet(), TopK(5), parts="all", motion=motion, kv_pool_size=2)
    other = retinanet()

    class Decoding(type(other.bbox_head)):
        def predict_by_feat(self, *args, **kwargs):
            return super().predict_by_feat(*args, **kwargs)

    other.bbox_head.__class__ = Decoding
    with pytest.raises(ValueError, match=r"bbox_head: .*Decoding overrides the predict_by_feat of"):
        apply_eventful(other, TopK(5), parts="all", motion=motion)


def test_parts_that_are_called_past_the_detector_need_a_name():
    model = retinanet()
    handle = apply_eventful(model, TopK(30), **ALL)
    ((picture, _),) = pan((0, 0), 1)
    with torch.no_grad():
        maps = model.backbone(picture[None])
        with pytest.raises(RuntimeError, match=r"came without a frame's backbone, .*with handle"):
            model.neck(maps)
        with handle.stream("door"):
            levels = model.neck(model.backbone(picture[None]))
    assert len(levels) == 5


def test_several_frames_of_a_stream_in_a_batch_go_one_after_the_other():
    model, single = rcnn(), rcnn()
    apply_eventful(model, TopK(30), **ALL)
    apply_eventful(single, TopK(30), **ALL)
    pictures = [picture for picture, _ in pan((7, -9), 6)]
    one = [detect(single, [p], [named("v", i)])[0] for i, p in enumerate(pictures)]
    for i in (0, 3):
        clip = Clips([[Frame(("v", 0), i + n) for n in range(3)]])
        with streams(clip), torch.no_grad():
            inputs = dict(inputs=pictures[i : i + 3], data_samples=[named(None, None)] * 3)
            data = model.data_preprocessor(inputs)
            results = model.predict(data["inputs"], data["data_samples"], rescale=False)
        for result, expected in zip(results, one[i : i + 3]):
            alike(result.pred_instances, expected)


def test_the_hook_of_a_config_and_taking_it_off():
    model, plain = rcnn(), rcnn()
    hook = EventfulHook(
        dict(type="TopK", k=30), parts="all", motion=dict(type="Translation", reach=0.5)
    )
    handle = hook.attach(model)
    for i, (picture, offset) in enumerate(pan((0, 9), 4)):
        detect(model, [picture], [named("v", i)])
        assert handle.frames[0].camera.offset == offset
    handle.remove()
    found, expected = (detect(m, [picture], [named("v", 0)])[0] for m in (model, plain))
    assert torch.equal(found.bboxes, expected.bboxes)


def test_a_neck_or_head_behind_a_backbone_that_follows_by_itself_is_refused():
    message = r"interpolates its maps back to the frame .* apply_eventful\(detector, policy, parts"
    model = retinanet()
    apply_eventful(model, TopK(20), motion=Translation())
    with pytest.raises(ValueError, match=message):
        apply_eventful_neck(model)
    model = retinanet()
    apply_eventful_neck(model)
    with pytest.raises(ValueError, match=message):
        apply_eventful(model, TopK(20), motion=Translation())
    apply_eventful(model, TopK(20), motion=Translation(maps="view"))
    for part in ("neck", "bbox_head"):  # put on by themselves, as in a config
        model = retinanet()
        apply_eventful(model.backbone, TopK(20), motion=Translation())
        if part == "neck":
            apply_eventful_neck(model.neck)
        else:
            apply_eventful(model, TopK(20), parts=part)
        frames = pan((0, 3), 2)
        with torch.no_grad(), pytest.raises(RuntimeError, match=message):
            detect(model, [next(frames)[0]], [named(1, 0)])
