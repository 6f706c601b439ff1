"""Trackers that tell objects apart by a second network, around eventful detectors."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch
from mmdet.models.trackers import sort_tracker, strongsort_tracker
from mmengine.config import Config
from mmengine.registry import DefaultScope
from scipy.optimize import linear_sum_assignment

from mmvitaccel.adapters.attach import is_attached
from mmvitaccel.adapters.eventful.apply import EventfulHandle, apply_eventful
from mmvitaccel.adapters.tome.apply import apply_tome
from mmvitaccel.core.eventful.gates.policy import TopK
from mmvitaccel.models.wrappers.eventful import attach_eventful
from mmvitaccel.models.wrappers.tome import attach_tome
from mmvitaccel.registry import MODELS
from tests.models.wrappers.test_tracking import (
    PREPROCESSOR,
    firsts,
    step,
    track_sample,
    video,
)
from tests.tiny_detector import EVENTFUL, RETINANET

pytest.importorskip("mmpretrain", reason="the second network is a classifier of mmpretrain")

REID = dict(
    type="BaseReID",
    data_preprocessor=dict(type="mmpretrain.ClsDataPreprocessor"),
    backbone=dict(
        type="mmpretrain.VisionTransformer", img_size=32, patch_size=8,
        arch=dict(embed_dims=24, num_layers=2, num_heads=2, feedforward_channels=48),
    ),
    head=dict(
        type="LinearReIDHead", num_fcs=1, in_channels=24, fc_channels=16, out_channels=8,
        num_classes=4, norm_cfg=dict(type="BN1d"), act_cfg=dict(type="ReLU"),
        loss_cls=dict(type="mmpretrain.CrossEntropyLoss"),
        loss_triplet=dict(type="TripletLoss", margin=0.3),
    ),
)  # fmt: skip
SORT = dict(
    motion=dict(type="KalmanFilter", center_only=False), obj_score_thr=0.3,
    match_iou_thr=0.5, num_tentatives=2, num_frames_retain=10,
)  # fmt: skip
TRACKERS = {
    "DeepSORT": dict(
        type="SORTTracker", **SORT,
        reid=dict(num_samples=10, img_scale=(32, 32), match_score_thr=2.0),
    ),
    "StrongSORT": dict(
        type="StrongSORTTracker", **SORT,
        reid=dict(num_samples=None, img_scale=(32, 32), match_score_thr=0.3, motion_weight=0.02),
    ),
}  # fmt: skip


class Lap:
    """The one function that these trackers use of the package motmetrics."""

    @staticmethod
    def solve(costs):
        return linear_sum_assignment(np.nan_to_num(costs, nan=1e6))


class AsTracked:
    """In place of StrongSORT's links between tracks, whose weights are downloaded."""

    def forward(self, tracks):
        return torch.from_numpy(tracks)


@pytest.fixture(autouse=True)
def _without_motmetrics(monkeypatch):
    for module in (sort_tracker, strongsort_tracker):
        monkeypatch.setattr(module, "motmetrics", Lap)
        monkeypatch.setattr(module, "linear_sum_assignment", Lap.solve, raising=False)


def tracker(kind, **parts):
    """A tracking model with a second network, on weights of its own."""
    detector = copy.deepcopy(RETINANET)
    detector.update(copy.deepcopy(parts))
    with DefaultScope.overwrite_default_scope("mmdet"):
        cfg = Config(dict(
            detector=detector, reid=REID, tracker=TRACKERS[kind], data_preprocessor=PREPROCESSOR
        ))._cfg_dict  # fmt: skip
        model = MODELS.build(dict(cfg, type=kind))
    if kind == "StrongSORT":
        model.postprocess_model = AsTracked()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    return model.eval()


def tracks(model):
    """Which objects each of three clips of two videos has, and how they look."""
    found = []
    for name, numbers in ((1, [0, 1, 2]), (2, [0, 1]), (1, [3])):
        sample = step(model, video(name, len(numbers)), track_sample(name, numbers))
        for image in sample.video_data_samples:
            found.append(torch.as_tensor(image.pred_track_instances.bboxes).float())
        found += [torch.cat(list(track.embeds)) for track in model.tracker.tracks.values()]
    return found


@pytest.mark.parametrize("kind", TRACKERS)
def test_the_second_network_is_no_frame_of_the_stream(kind):
    dense = tracks(tracker(kind))
    assert any(len(part) for part in dense)
    model = tracker(kind, backbone={**EVENTFUL, "policy": dict(type="Always")})
    handle = EventfulHandle(model)
    seen = []
    model.reid.register_forward_hook(lambda module, args, out: seen.append(len(args[0])))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Eventful")
        for ours, wanted in zip(tracks(model), dense, strict=True):
            torch.testing.assert_close(ours, wanted, rtol=1e-3, atol=1e-3)
    assert sum(seen) > 0
    assert firsts(handle) == [False]  # of a video that went on after another
    assert {name[0] for name in handle.streams} == {1, 2}
    assert not is_attached(model.reid.backbone)


@pytest.mark.parametrize("kind", TRACKERS)
def test_each_network_has_its_own_method(kind):
    model = tracker(kind)
    handle = attach_eventful(model, dict(type="TopK", k=6))[1]
    merged = apply_tome(model.reid, r=2)
    step(model, video(1, 3), track_sample(1, [0, 1, 2]))
    assert firsts(handle) == [True, False, False]
    assert merged.tokens == [15, 13]
    with pytest.raises(ValueError, match=r"holds 2 vision transformers, 'detector\.backbone'"):
        apply_eventful(model, TopK(6))
    assert attach_tome(tracker(kind), r=2)[0] == "detector.backbone"
