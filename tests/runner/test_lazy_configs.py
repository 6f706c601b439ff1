"""Configs in mmengine's pure-Python style, whose types are classes, serve as those with names."""

from __future__ import annotations

import json

import pytest

from mmvitaccel.analysis.flops import count_config
from mmvitaccel.deploy.detection_graph import check_detector
from mmvitaccel.errors import UserError
from mmvitaccel.runner.config import load_config, package_of
from mmvitaccel.runner.session import build_model, run, set_work_dir
from mmvitaccel.video.clip_steps import ClipSettings

DETECTOR = """
from mmcv.ops import nms
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets import CocoDataset
from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs, Resize
from mmdet.evaluation import CocoMetric
from mmdet.models import DetDataPreprocessor, FocalLoss, L1Loss, RetinaHead, RetinaNet
from mmdet.models.task_modules import (AnchorGenerator, DeltaXYWHBBoxCoder, MaxIoUAssigner,
                                       PseudoSampler)
from mmengine.dataset import DefaultSampler
from mmengine.hooks import CheckpointHook
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, TestLoop, ValLoop
from torch.optim import SGD

from mmvitaccel.models.efficientvit.backbone import EfficientViT
from mmvitaccel.models.efficientvit.fpn import EfficientViTFPN

default_scope = None
model = dict(
    type=RetinaNet,
    data_preprocessor=dict(type=DetDataPreprocessor, mean=[0.0] * 3, std=[255.0] * 3,
                           pad_size_divisor=32),
    backbone=dict(type=EfficientViT, arch=dict(
        embed_dims=(16, 24, 32), depths=(1, 1, 1), num_heads=(2, 3, 2), kernels=(5, 3, 3))),
    neck=dict(type=EfficientViTFPN, in_channels=[16, 24, 32], out_channels=8, num_outs=5,
              num_extra_trans_convs=1),
    bbox_head=dict(
        type=RetinaHead, num_classes=2, in_channels=8, stacked_convs=1, feat_channels=8,
        anchor_generator=dict(type=AnchorGenerator, octave_base_scale=4, scales_per_octave=1,
                              ratios=[1.0], strides=[8, 16, 32, 64, 128]),
        bbox_coder=dict(type=DeltaXYWHBBoxCoder),
        loss_cls=dict(type=FocalLoss, use_sigmoid=True), loss_bbox=dict(type=L1Loss)),
    train_cfg=dict(assigner=dict(type=MaxIoUAssigner, pos_iou_thr=0.5, neg_iou_thr=0.4,
                                 min_pos_iou=0, ignore_iof_thr=-1),
                   sampler=dict(type=PseudoSampler), allowed_border=-1, pos_weight=-1),
    test_cfg=dict(nms_pre=100, min_bbox_size=0, score_thr=0.01,
                  nms=dict(type=nms, iou_threshold=0.5), max_per_img=10))
steps = [dict(type=LoadImageFromFile), dict(type=LoadAnnotations, with_bbox=True),
         dict(type=Resize, scale=(64, 64)), dict(type=PackDetInputs, meta_keys=(
             'img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]
data = dict(type=CocoDataset, data_root='{root}', ann_file='boxes.json',
            data_prefix=dict(img='images'), metainfo=dict(classes=('bright', 'dark')),
            pipeline=steps)
train_dataloader = dict(batch_size=5, num_workers=0, persistent_workers=True, dataset=data,
                        sampler=dict(type=DefaultSampler, shuffle=True))
val_dataloader = dict(batch_size=1, num_workers=0, sampler=dict(type=DefaultSampler, shuffle=False),
                      dataset=dict(data, test_mode=True))
test_dataloader = val_dataloader
val_evaluator = dict(type=CocoMetric, ann_file='{root}/boxes.json')
test_evaluator = val_evaluator
train_cfg = dict(type=EpochBasedTrainLoop, max_epochs=1)
val_cfg = dict(type=ValLoop)
test_cfg = dict(type=TestLoop)
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=SGD, lr=0.01))
default_hooks = dict(checkpoint=dict(type=CheckpointHook, interval=1))
"""

RECOGNIZER = """
from mmaction.datasets import VideoDataset
from mmaction.datasets.transforms import (CenterCrop, DecordDecode, DecordInit, FormatShape,
                                          PackActionInputs, Resize, SampleFrames)
from mmaction.models import ActionDataPreprocessor, Recognizer3D, TimeSformerHead

from mmvitaccel.models.vivit.backbone import ViViT

model = dict(
    type=Recognizer3D,
    data_preprocessor=dict(type=ActionDataPreprocessor, mean=[0.0] * 3, std=[255.0] * 3,
                           format_shape='NCTHW'),
    backbone=dict(type=ViViT, img_size=32, num_frames=4, tubelet_size=(2, 16, 16), embed_dim=24,
                  spatial_depth=1, temporal_depth=1, num_heads=2),
    cls_head=dict(type=TimeSformerHead, num_classes=2, in_channels=24, average_clips='prob'))
pipeline = [dict(type=DecordInit), dict(type=SampleFrames, clip_len=4, frame_interval=2,
                                        num_clips=1, test_mode=True),
            dict(type=DecordDecode), dict(type=Resize, scale=(-1, 32)),
            dict(type=CenterCrop, crop_size=32), dict(type=FormatShape, input_format='NCTHW'),
            dict(type=PackActionInputs)]
val_dataloader = dict(batch_size=1, num_workers=0,
                      dataset=dict(type=VideoDataset, ann_file='x.txt', pipeline=pipeline))
test_dataloader = val_dataloader
"""


@pytest.fixture
def detector(tmp_path, boxes):
    path = tmp_path / "lazy_detector.py"
    path.write_text(DETECTOR.replace("{root}", str(boxes)))
    return path


@pytest.fixture
def recognizer(tmp_path):
    pytest.importorskip("mmaction")
    path = tmp_path / "lazy_recognizer.py"
    path.write_text(RECOGNIZER)
    return path


def test_a_detector_is_built_counted_and_can_be_exported(detector):
    cfg = load_config(str(detector), {"model.backbone.in_channels": 3})
    assert package_of(cfg) == "mmdet"
    model = build_model(cfg)
    check_detector(model)
    assert count_config(cfg)["input_shape"] == [3, 64, 64]


def test_what_is_imported_cannot_be_called_while_a_config_is_read(detector):
    with detector.open("a") as file:
        file.write("from functools import partial\ncut = partial(nms, iou_threshold=0.5)\n")
    number = len(detector.read_text().splitlines())
    sentence = rf"lazy_detector\.py: line {number} calls partial, .* dict\(type=partial, \.\.\.\)"
    with pytest.raises(UserError, match=sentence):
        load_config(str(detector), {})


def test_a_function_without_a_name_is_named_by_its_key(detector):
    with detector.open("a") as file:
        file.write("data['twice'] = [1, lambda x: 2 * x]\n")
    cfg = load_config(str(detector), {})
    set_work_dir(cfg, str(detector.parent / "run"))
    with pytest.raises(UserError, match=r"data\.twice\.1 is <function .*lambda.*cannot be written"):
        run(cfg, "train")


def test_a_detector_trains(detector):
    cfg = load_config(str(detector), {})
    set_work_dir(cfg, str(detector.parent / "run"))
    run(cfg, "train")
    assert (detector.parent / "run" / "epoch_1.pth").is_file()


def test_a_detector_is_drawn_and_augmented(run_tool, detector):
    import torch

    cfg = load_config(str(detector), {})
    torch.save(build_model(cfg).state_dict(), detector.parent / "w.pth")
    tool = ["test", detector, "w.pth", "--work-dir", "a"]
    run_tool(*tool, "--tta", "--show-dir", "shown", "--out", "a.pkl")
    (drawn,) = (detector.parent / "a").glob("*/shown")
    assert len(list(drawn.iterdir())) == 5
    (log,) = (detector.parent / "a").glob("*/*.json")
    assert "coco/bbox_mAP" in json.loads(log.read_text().splitlines()[-1])


def test_a_recognizer_is_prepared_for_a_stream(recognizer):
    cfg = load_config(str(recognizer), {})
    settings = ClipSettings.of(cfg)
    assert (settings.clip_len, settings.frame_interval) == (4, 2)
    assert [type(t).__name__ for t in settings.transforms] == ["Resize", "CenterCrop"]
    assert count_config(cfg)["input_shape"] == [3, 4, 32, 32]
