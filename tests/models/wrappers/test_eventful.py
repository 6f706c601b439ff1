"""Eventful from a config: the registered function and the streams of a detector's images."""

from __future__ import annotations

import copy
import gc
import warnings
import weakref

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from torch import nn

from mmvitaccel import Every, LastObjects, OnChange, RunningObjects
from mmvitaccel.adapters.eventful.apply import EventfulHandle, apply_eventful
from mmvitaccel.adapters.eventful.neck import EventfulNeckHandle
from mmvitaccel.core.eventful.frame import current_frames
from mmvitaccel.core.eventful.gates.policy import Always, TopK
from mmvitaccel.core.eventful.modes.exact import ExactAttention
from mmvitaccel.core.macs.counter import MacsCounter
from mmvitaccel.models.vitdet.backbone import ViTDet
from mmvitaccel.models.vitdet.simple_fpn import SimpleFPN
from mmvitaccel.models.wrappers.eventful import (
    attach_eventful,
    build_attention,
    build_policy,
    build_refresh,
)
from mmvitaccel.registry import MODELS, POLICIES
from tests.tiny_detector import EVENTFUL, PREPROCESSOR, RETINANET, VITDET

DETECTOR = {**RETINANET, "data_preprocessor": PREPROCESSOR, "backbone": EVENTFUL}
PLAIN = {**DETECTOR, "backbone": VITDET}


def build(cfg):
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = MODELS.build(Config(copy.deepcopy(cfg))._cfg_dict)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    return model.eval()


def images(count, seed=0, size=(40, 56)):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 256, (3, *size), generator=generator).float() for _ in range(count)]


def sample(video_id, frame_id, **meta):
    shape = dict(img_shape=(40, 56), ori_shape=(40, 56), scale_factor=(1.0, 1.0), img_id=0)
    return DetDataSample(metainfo={**shape, "video_id": video_id, "frame_id": frame_id, **meta})


def test_step(model, imgs, samples):
    with torch.no_grad():
        results = model.test_step(dict(inputs=imgs, data_samples=samples))
    return [(r.pred_instances.bboxes, r.pred_instances.scores) for r in results]


test_step.__test__ = False


def firsts(model):
    return [frame.first for frame in EventfulHandle(model).frames]


def test_checkpoint_keys_and_parameter_names_are_those_of_the_bare_backbone():
    bare, eventful = build(VITDET), build(EVENTFUL)
    assert isinstance(eventful, ViTDet)
    assert [n for n, _ in bare.named_parameters()] == [n for n, _ in eventful.named_parameters()]
    eventful.load_state_dict(bare.state_dict(), strict=True)
    bare.load_state_dict(eventful.state_dict(), strict=True)
    handle = EventfulHandle(eventful)
    assert handle.policy.k == 6 and isinstance(handle.options.attention, ExactAttention)


def test_a_detector_tells_the_streams_of_its_images():
    model = build(DETECTOR)
    seen = []
    for video_id, frame_id in [(1, 0), (1, 1), (2, 0), (1, 2), (2, 1), (2, 1), (1, 0)]:
        test_step(model, images(1), [sample(video_id, frame_id)])
        seen.append((video_id, frame_id, *firsts(model)))
    assert [first for *_, first in seen] == [True, False, True, False, False, True, True]
    assert [name[0] for name in EventfulHandle(model).streams] == [2, 1]


def test_batched_videos_give_what_each_alone_gives():
    videos = {1: images(4, seed=1), 2: images(4, seed=2)}
    alone = {}
    for video, frames in videos.items():
        model = build(DETECTOR)
        alone[video] = [test_step(model, [f], [sample(video, i)])[0] for i, f in enumerate(frames)]
    model = build(DETECTOR)
    for i in range(4):
        batch = test_step(model, [videos[1][i], videos[2][i]], [sample(1, i), sample(2, i)])
        for video, result in zip((1, 2), batch):
            for ours, expected in zip(result, alone[video][i]):
                torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-3)


def test_flips_sizes_and_cuts():
    model = build(DETECTOR)
    plain, flipped = dict(flip=False), dict(flip=True, flip_direction="horizontal")
    for i in range(2):
        test_step(model, images(1), [sample(1, i, **plain)])
        assert firsts(model) == [i == 0]
        test_step(model, images(1), [sample(1, i, **flipped)])
        assert firsts(model) == [i == 0]
    test_step(model, images(1, size=(24, 32)), [sample(1, 2, img_shape=(24, 32), **plain)])
    assert firsts(model) == [True]
    assert len(EventfulHandle(model).streams) == 3
    test_step(model, images(1), [sample(1, 2, **plain, scene_cut=True)])
    assert firsts(model) == [True]


def test_images_without_a_video_are_strangers_which_is_said_once():
    model, pictures = build(DETECTOR), images(3)
    handle = EventfulHandle(model)
    with pytest.warns(UserWarning, match="the images have no video_id"):
        outs = [test_step(model, [p], [sample(None, None)])[0] for p in pictures]
    assert firsts(model) == [True] and handle.streams == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        test_step(model, pictures, [sample(None, None)] * 3)
    handle.remove()
    for ours, picture in zip(outs, pictures):
        for a, b in zip(ours, test_step(model, [picture], [sample(None, None)])[0]):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)


def test_a_stream_that_is_named_around_the_call_holds():
    model = build(DETECTOR)
    handle = EventfulHandle(model)
    with handle.stream("camera"):
        for i, picture in enumerate(images(2)):
            test_step(model, [picture], [sample(None, None)])
            assert firsts(model) == [i == 0]
    assert handle.streams == ["camera"]


def test_batches_that_mix_videos_are_refused():
    model, pictures = build(DETECTOR), images(2)
    with pytest.raises(ValueError, match="1 of 2 images of a batch have no video_id"):
        test_step(model, pictures, [sample(1, 0), sample(None, None)])
    with pytest.raises(ValueError, match=r"several frames of one video \(video_id: \[3, 3\]\)"):
        test_step(model, pictures, [sample(3, 0), sample(3, 1)])
    test_step(model, pictures[:1], [sample(3, 0)])
    assert firsts(model) == [True], "a call that failed leaves nothing behind"


def test_removing_takes_the_hooks_off_the_detector():
    model = build(DETECTOR)
    assert len(model._forward_pre_hooks) == len(model._forward_hooks) == 1
    copied = copy.deepcopy(model)
    test_step(copied, images(1), [sample(1, 0)])
    assert firsts(copied) == [True] and EventfulHandle(model).streams == []
    EventfulHandle(model).remove()
    assert not model._forward_pre_hooks and not model._forward_hooks
    assert type(model.backbone) is ViTDet


def test_training_loss_is_that_of_the_bare_detector():
    bare = copy.deepcopy(DETECTOR)
    bare["backbone"] = VITDET
    losses = []
    for cfg in (DETECTOR, bare):
        cfg = {**cfg, "train_cfg": dict(
            assigner=dict(type="MaxIoUAssigner", pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0),
            sampler=dict(type="PseudoSampler"), allowed_border=-1, pos_weight=-1,
        )}  # fmt: skip
        model = build(cfg).train()
        truth = sample(1, 0)
        from mmengine.structures import InstanceData

        truth.gt_instances = InstanceData(
            bboxes=torch.tensor([[4.0, 4.0, 30.0, 30.0]]), labels=torch.tensor([1])
        )
        data = model.data_preprocessor(dict(inputs=images(1), data_samples=[truth]), True)
        loss = model(**data, mode="loss")
        losses.append(float(sum(v if torch.is_tensor(v) else sum(v) for v in loss.values())))
    assert losses[0] == losses[1]


class Wrapper(nn.Module):
    """What stands between a backbone and its detector in some models."""

    def __init__(self, backbone):
        super().__init__()
        self.inner = backbone


class Model(BaseModel):
    """A model with a backbone somewhere in it."""

    def __init__(self, inner):
        super().__init__()
        self.deep = Wrapper(inner)

    def forward(self, inputs, data_samples=None, mode="tensor"):
        return self.deep.inner(inputs)


@pytest.mark.parametrize("built_first", ["backbone", "model"])
def test_the_detector_is_found_through_modules_between(built_first):
    if built_first == "backbone":
        model = Model(build(EVENTFUL))
    else:
        model = Model(build(VITDET))
        apply_eventful(model.deep.inner, TopK(6))
    model.eval()
    assert len(model._forward_pre_hooks) == 1
    with torch.no_grad():
        for video, frame in ((1, 0), (1, 1), (2, 2)):
            model(images(1)[0][None], [sample(video, frame)])
            assert firsts(model) == [(video, frame) != (1, 1)]
    EventfulHandle(model).remove()
    assert not model._forward_pre_hooks


def test_nothing_is_kept_alive_by_who_is_waiting_for_its_model():
    backbone = weakref.ref(Model(build(EVENTFUL)).deep.inner)
    gc.collect()
    assert backbone() is None


def test_a_transformer_neck_is_served_the_same_way():
    layer = dict(
        type="BaseTransformerLayer",
        attn_cfgs=dict(type="MultiheadAttention", embed_dims=16, num_heads=2, batch_first=True),
        ffn_cfgs=dict(type="FFN", embed_dims=16, feedforward_channels=32),
        operation_order=("norm", "self_attn", "norm", "ffn"),
        batch_first=True,
    )

    @MODELS.register_module(name="TransformerNeckOfThisTest")
    class Neck(nn.Module):
        def __init__(self):
            super().__init__()
            from mmcv.cnn.bricks.transformer import TransformerLayerSequence

            self.layers = TransformerLayerSequence(layer, num_layers=2)

        def forward(self, x):
            return self.layers(x, None, None)

    cfg = dict(
        type="mmvitaccel.Eventful", policy=dict(type="TopK", k=3),
        neck=dict(type="mmvitaccel.TransformerNeckOfThisTest"),
    )  # fmt: skip
    neck = build(cfg)
    with torch.no_grad():
        for i in range(2):
            neck(torch.randn(1, 9, 16))
            assert firsts(neck) == [i == 0]
    assert EventfulHandle(neck).frames[0].passed == [(3, 3, 3)] * 2


def test_policies_and_modes_from_configs():
    @POLICIES.register_module(force=True)
    class PolicyOfThisTest:
        def __init__(self, every):
            self.every = every

        def select(self, error):
            return torch.arange(0, error.shape[1], self.every).expand(len(error), -1)

    model = build({**EVENTFUL, "policy": dict(type="PolicyOfThisTest", every=5)})
    with torch.no_grad():
        for _ in range(2):
            model(torch.randn(1, 3, 40, 56))
    assert EventfulHandle(model).frames[0].passed == [(7, 7, 7)] * 3
    assert build_policy(dict(type="mmvitaccel.TopK", k=3)).k == 3
    assert build_policy(dict(type=TopK, k=4)).k == 4
    assert isinstance(build_policy(dict(type="Always")), Always)
    exact = build_attention(dict(type="exact", dense_share=0.5, guard=dict(turn_frames=7)))
    assert exact.dense_share == 0.5 and exact.guard.turn_frames == 7


WEIGHTED = dict(
    type="Weighted", base=dict(type="TopK", k=6), floor=0.0,
    importance=[dict(type="LastObjects", grow=0), dict(type="mmvitaccel.RunningObjects", keep=0.5)],
)  # fmt: skip


def test_refreshes_and_weighted_policies_from_configs():
    assert build_refresh(dict(type="mmvitaccel.OnChange", above=0.7)) == OnChange(0.7)
    assert build_refresh(Every(3)) == Every(3) == build_refresh(dict(type=Every, frames=3))
    policy = build_policy(WEIGHTED)
    assert policy.importance == (LastObjects(0), RunningObjects(0.5))
    assert (policy.base.k, policy.floor) == (6, 0)
    with pytest.raises(
        ValueError, match=r"importance=.*'Nobody'.* known are LastObjects, Received"
    ):
        build_policy({**WEIGHTED, "importance": [dict(type="Nobody")]})
    with pytest.raises(ValueError, match=r"refresh=.*'Nobody'.* known are Every, OnChange, OnReq"):
        build({**EVENTFUL, "refresh": dict(type="Nobody")})
    assert WEIGHTED["base"] == dict(type="TopK", k=6)  # a config stays as it is


def test_a_detectors_neck_is_told_of_a_refresh():
    neck = dict(
        type="mmvitaccel.EventfulNeck", policy=dict(type="TopK", k=2), neck=DETECTOR["neck"]
    )
    backbone = {**EVENTFUL, "refresh": dict(type="Every", frames=2)}
    model, dense = build({**DETECTOR, "backbone": backbone, "neck": neck}), build(PLAIN)
    for number, image in enumerate(images(5)):
        ours = test_step(model, [image], [sample(1, number)])
        refreshed = [
            kind(model).frames[0].refreshed for kind in (EventfulHandle, EventfulNeckHandle)
        ]
        assert refreshed == [number in (2, 4)] * 2
        theirs = test_step(dense, [image], [sample(1, number)])
        same = all(torch.allclose(a, b, atol=1e-4) for a, b in zip(ours[0], theirs[0]))
        assert same == (number in (0, 2, 4))


def test_a_detectors_boxes_say_what_matters():
    model = build({**DETECTOR, "backbone": {**EVENTFUL, "policy": WEIGHTED}})
    handle = EventfulHandle(model)
    # the picture was 80 x 112 pixels; its input of 40 x 56 has 5 x 7 tokens
    meta = dict(scale_factor=(0.5, 0.5), ori_shape=(80, 112))

    def found(*boxes, scores):
        def predict(inputs, samples, **kwargs):
            model.extract_feat(inputs)
            for data_sample in samples:
                data_sample.pred_instances = InstanceData(
                    bboxes=torch.tensor(boxes), scores=torch.tensor(scores)
                )
            return samples

        return predict

    for number, image in enumerate(images(4)):
        boxes = ((56.0, 48, 112, 80), (0.0, 0, 30, 30))
        model.predict = found(*boxes, scores=[0.9, 0.1])
        test_step(model, [image], [sample(1, number, **meta)])
        if number:
            passed = handle.passed_tokens()[0][0, 0, 0].unflatten(0, (5, 7))
            assert passed[3:, 3:].sum() == passed.sum() == 6
    with torch.no_grad():  # what is no result has no boxes, and the last ones hold
        model(torch.stack(images(1)), [sample(1, 9, **meta)], mode="tensor")
    passed = handle.passed_tokens()[0][0, 0, 0].unflatten(0, (5, 7))
    assert passed[3:, 3:].sum() == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(policy=dict(type="TopKK", k=3)), "policy={'type': 'TopKK', 'k': 3} has no reg"),
        (dict(policy=dict(k=3)), "known are Always, .*TopK"),
        (dict(policy=dict(type="TopK", k=0)), "k=0 must be a whole number"),
        (dict(backbone=None), "got neither of backbone"),
        (dict(neck=VITDET), "got backbone and neck"),
        (dict(attention="dense"), "attention='dense' must be one of tokenwise, delta, exact"),
        (dict(attention=dict(type="delta", guard=1)), "must have a type, and arguments only with"),
        (dict(backbone=dict(type="mmdet.ResNet", depth=18)), "supported are: "),
    ],
)
def test_wrong_configs_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        build({**EVENTFUL, **changes})


# Pyramids.


def eventful_neck(**changes):
    """The detector's pyramid as a config of EventfulNeck."""
    return dict(type="mmvitaccel.EventfulNeck", neck=DETECTOR["neck"], **changes)


def test_a_pyramid_keeps_its_keys_and_is_told_its_streams():
    model = build({**DETECTOR, "backbone": VITDET, "neck": eventful_neck()})
    plain = build({**DETECTOR, "backbone": VITDET})
    plain.load_state_dict(model.state_dict(), strict=True)
    handle = EventfulNeckHandle(model)
    assert isinstance(model.neck, SimpleFPN) and len(model._forward_pre_hooks) == 1
    for i, (picture, video) in enumerate(zip(images(6), (1, 2, 1, 2, 1, 1))):
        ours = test_step(model, [picture], [sample(video, i)])[0]
        for a, b in zip(ours, test_step(plain, [picture], [sample(video, i)])[0]):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)
        assert [frame.first for frame in handle.frames] == [i < 2]
    assert [name[0] for name in handle.streams] == [2, 1]
    handle.remove()
    assert not model._forward_pre_hooks and type(model.neck) is SimpleFPN


def test_a_pyramid_and_a_backbone_together():
    model = build({**DETECTOR, "neck": eventful_neck(policy=dict(type="TopK", k=2))})
    neck = EventfulNeckHandle(model)
    expected = build(DETECTOR)
    test_step(expected, images(1), [sample(1, 0)])
    dense = count_step(expected, 1)
    test_step(model, images(1), [sample(1, 0)])
    ours = count_step(model, 1)
    assert firsts(model) == [False] and neck.frames[0].passed == [(2,)]
    assert ours["backbone"] == dense["backbone"] and ours["neck"] < 0.7 * dense["neck"]
    assert current_frames() is None, "a call's streams end with it"
    EventfulHandle(model).remove()
    test_step(model, images(1), [sample(1, 2)])
    assert [frame.first for frame in neck.frames] == [False]
    assert model.backbone.state_dict().keys() == expected.backbone.state_dict().keys()


def count_step(model, frame_id):
    """Multiply-adds of a frame, by part."""
    with MacsCounter(model) as counter:
        test_step(model, images(1, seed=frame_id), [sample(1, frame_id)])
    return counter.report().parts()


def test_a_pyramid_beside_a_backbone_that_a_hook_makes_eventful():
    model = build({**DETECTOR, "backbone": VITDET, "neck": eventful_neck()})
    _, handle = attach_eventful(model, dict(type="TopK", k=6))
    for i, picture in enumerate(images(2)):
        test_step(model, [picture], [sample(1, i)])
        assert firsts(model) == [f.first for f in EventfulNeckHandle(model).frames] == [i == 0]
        assert current_frames() is None
    handle.remove()
    assert len(model._forward_pre_hooks) == 1 and EventfulNeckHandle(model).attached


def test_a_wrapper_of_a_backbone_refuses_parts():
    with pytest.raises(ValueError, match=r"parts='all' applies to a whole det.*EventfulHook"):
        build({**DETECTOR, "backbone": {**EVENTFUL, "parts": "all"}})
    with pytest.raises(ValueError, match=r"target='neck' and parts='all' are both given"):
        attach_eventful(build(DETECTOR), dict(type="TopK", k=6), target="neck", parts="all")


def test_a_neck_that_is_not_supported_is_named():
    mapper = dict(type="mmdet.ChannelMapper", in_channels=[24], out_channels=8)
    with pytest.raises(ValueError, match=r"ChannelMapper holds no supported neck; supported are"):
        build({**DETECTOR, "neck": dict(type="mmvitaccel.EventfulNeck", neck=mapper)})
    with pytest.raises(ValueError, match=r"policy=\{.type.: .Top.\} has no registered type"):
        build({**DETECTOR, "neck": eventful_neck(policy=dict(type="Top"))})


# Inferencers.


def test_an_inferencer_follows_a_named_stream(tmp_path):
    from mmdet.apis import DetInferencer

    pipeline = [
        dict(type="LoadImageFromFile"),
        dict(type="Resize", scale=(56, 40), keep_ratio=False),
        dict(type="PackDetInputs", meta_keys=("img_id", "ori_shape", "img_shape", "scale_factor")),
    ]
    meta = dict(classes=("a", "b"))
    cfg = Config(dict(
        model=DETECTOR, default_scope="mmdet",
        test_dataloader=dict(dataset=dict(type="CocoDataset", pipeline=pipeline, metainfo=meta)),
        test_evaluator=dict(type="CocoMetric"),
        visualizer=dict(type="DetLocalVisualizer"),
    ))  # fmt: skip
    path = tmp_path / "detector.py"
    cfg.dump(path)
    inferencer = DetInferencer(str(path), device="cpu", show_progress=False)
    handle = EventfulHandle(inferencer.model)
    frames = [np.random.default_rng(i).integers(0, 255, (80, 112, 3), np.uint8) for i in range(3)]
    with handle.stream("camera"):
        for i, frame in enumerate(frames):
            inferencer(frame)
            assert firsts(inferencer.model) == [i == 0]
    with pytest.warns(UserWarning, match="no video_id"):
        inferencer(frames)
    assert firsts(inferencer.model) == [True]
