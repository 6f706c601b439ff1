"""A RetinaNet of 20 000 parameters on a ViTDet of 5 x 7 tokens: its parts, a config, weights."""

from __future__ import annotations

from pathlib import Path

import torch

from mmvitaccel.runner.config import load_config
from mmvitaccel.runner.session import build_model

VITDET = dict(
    type="mmvitaccel.ViTDet", img_size=64, patch_size=8, embed_dim=24, depth=3, num_heads=3,
    window_size=3, window_block_indexes=(0, 2), pretrain_img_size=32,
)  # fmt: skip
EVENTFUL = dict(type="mmvitaccel.Eventful", policy=dict(type="TopK", k=6), backbone=VITDET)
NECK = dict(
    type="mmvitaccel.SimpleFPN", in_channels=24, out_channels=8, patch_size=8, num_outs=2,
    scale_factors=(1.0, 0.5),
)  # fmt: skip
ANCHORS = dict(
    type="AnchorGenerator", octave_base_scale=4, scales_per_octave=1, ratios=[1.0], strides=[8, 16]
)
CODER = dict(type="DeltaXYWHBBoxCoder", target_means=[0.0] * 4, target_stds=[1.0] * 4)
NMS = dict(type="nms", iou_threshold=0.5)
PREPROCESSOR = dict(
    type="DetDataPreprocessor", mean=[120.0] * 3, std=[60.0] * 3, pad_size_divisor=8
)
RETINANET = dict(
    type="RetinaNet",
    backbone=VITDET,
    neck=NECK,
    bbox_head=dict(
        type="RetinaHead", num_classes=2, in_channels=8, stacked_convs=1, feat_channels=8,
        anchor_generator=ANCHORS, bbox_coder=CODER,
        loss_cls=dict(type="FocalLoss", use_sigmoid=True), loss_bbox=dict(type="L1Loss"),
    ),
    test_cfg=dict(nms_pre=50, min_bbox_size=0, score_thr=0.0, nms=NMS, max_per_img=5),
)  # fmt: skip
TRAIN_CFG = dict(
    assigner=dict(type="MaxIoUAssigner", pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0),
    sampler=dict(type="PseudoSampler"),
    allowed_border=-1,
    pos_weight=-1,
)
_ON_VIDEOS = """
default_scope = 'mmdet'
work_dir = '{root}/work'
model = {model}
load = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(56, 40), keep_ratio=True)]
pack = dict(type='PackDetInputs', meta_keys=('img_id', 'ori_shape', 'img_shape', 'scale_factor',
                                             'video_id', 'frame_id', 'video_length'))
dataset = dict(type='mmvitaccel.ImageNetVID', ann_file='{ann_file}', data_prefix=dict(img='{root}'),
               metainfo=dict(classes=('cat', 'dog')))
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**dataset, pipeline=[
        load[0], dict(type='LoadAnnotations', with_bbox=True), load[1], pack]))
val_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type='mmvitaccel.VideoSampler'),
    dataset=dict(**dataset, test_mode=True, pipeline=[*load, pack]))
test_dataloader = val_dataloader
val_evaluator = dict(type='mmvitaccel.VIDMetric', ann_file='{ann_file}')
test_evaluator = val_evaluator
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.001))
default_hooks = dict(logger=dict(type='LoggerHook', interval=1),
                     checkpoint=dict(type='CheckpointHook', interval=1))
randomness = dict(seed=0)
env_cfg = dict(mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0))
"""
HOOK = "\ncustom_hooks = [dict(type='mmvitaccel.EventfulHook', policy=dict(type='TopK', k=6))]\n"


def on_videos(root: Path, ann_file: Path | str = "none.json") -> str:
    """The text of a config that trains and tests the detector on videos.

    Args:
        root: Folder of the pictures, and of the work directory.
        ann_file: CocoVID json with the classes cat and dog.
    """
    model = dict(RETINANET, data_preprocessor=PREPROCESSOR, train_cfg=TRAIN_CFG)
    text = _ON_VIDEOS.replace("{model}", str(model)).replace("{root}", str(root))
    return text.replace("{ann_file}", str(ann_file))


def write_weights(config: Path, path: Path) -> None:
    """Write random weights for a config's detector, with which it finds much."""
    torch.manual_seed(0)
    model = build_model(load_config(str(config), {}))
    torch.nn.init.constant_(model.bbox_head.retina_cls.bias, 1.0)
    torch.save(dict(state_dict=model.state_dict()), path)
