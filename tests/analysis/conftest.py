"""A small ViTDet RetinaNet, on pictures and on two videos, and weights for it."""

from __future__ import annotations

import pytest
import torch

from mmvitaccel.runner.config import load_config
from mmvitaccel.runner.session import build_model

VITDET = """
_base_ = ['{base}']
model = dict(
    data_preprocessor=dict(pad_size_divisor=8),
    backbone=dict(_delete_=True, type='mmvitaccel.ViTDet', img_size=64, patch_size=8, embed_dim=24,
                  depth=2, num_heads=3, window_size=4, window_block_indexes=(0,),
                  pretrain_img_size=32),
    neck=dict(_delete_=True, type='mmvitaccel.SimpleFPN', in_channels=24, out_channels=8,
              patch_size=8, num_outs=2, scale_factors=(1.0, 0.5)),
    bbox_head=dict(anchor_generator=dict(strides=[8, 16])))
"""
VIDEOS = """
videos = dict(
    batch_size=1, num_workers=0, sampler=dict(type='mmvitaccel.VideoSampler'),
    dataset=dict(
        type='mmvitaccel.ImageNetVID', ann_file='{ann_file}', data_prefix=dict(img='{root}'),
        metainfo=dict(classes=('cat', 'dog')), test_mode=True,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=(56, 40), keep_ratio=True),
            dict(type='PackDetInputs', meta_keys=(
                'img_id', 'ori_shape', 'img_shape', 'scale_factor', 'video_id', 'frame_id',
                'video_length'))]))
test_dataloader = dict(_delete_=True, **videos)
test_evaluator = dict(_delete_=True, type='mmvitaccel.VIDMetric', ann_file='{ann_file}')
"""


@pytest.fixture
def vitdet_config(detector_config):
    """The shared detector with a small ViTDet, its pictures and COCO's metric."""
    path = detector_config.with_name("vitdet.py")
    path.write_text(VITDET.replace("{base}", str(detector_config)))
    return path


@pytest.fixture
def video_config(vitdet_config, write_cocovid, tmp_path):
    """That detector, tested on two videos of three frames."""
    ann_file = write_cocovid(lengths=(3, 3), size=(80, 112))
    text = VIDEOS.replace("{ann_file}", str(ann_file)).replace("{root}", str(tmp_path))
    path = vitdet_config.with_name("videos.py")
    path.write_text(vitdet_config.read_text() + text)
    return path


@pytest.fixture
def weights_of(tmp_path):
    """``weights_of(config)`` writes random weights for a config's model; returns their file."""

    def write(config, seed=0):
        torch.manual_seed(seed)
        path = tmp_path / f"weights{seed}.pth"
        torch.save(build_model(load_config(str(config), {})).state_dict(), path)
        return path

    return write
