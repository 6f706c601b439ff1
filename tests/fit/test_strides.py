"""Strides of heads that match or do not match EfficientViT's 16 to 64."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mmvitaccel.errors import UserError
from mmvitaccel.fit.check import SPLITS, check_model
from mmvitaccel.fit.strides import check_strides
from mmvitaccel.runner.config import load_config
from mmvitaccel.runner.session import build_model

ROOT = Path(__file__).parents[2]
NARROW = """
_base_ = "mmdet::{base}"
custom_imports = dict(imports=["mmvitaccel"])
model = dict(
    backbone=dict(
        _delete_=True, type="mmvitaccel.EfficientViT",
        arch=dict(embed_dims=(16, 24, 32), depths=(1, 1, 1), num_heads=(2, 3, 2),
                  kernels=(5, 3, 3))),
    neck=dict({neck}))
"""
EFFICIENT_FPN = (
    "_delete_=True, type='mmvitaccel.EfficientViTFPN', in_channels=[16, 24, 32], "
    "out_channels=256, num_outs=5, num_extra_trans_convs={extra}"
)


def write(path: Path, base: str, neck: str = "in_channels=[16, 24, 32]") -> str:
    path.write_text(NARROW.format(base=base, neck=neck))
    return str(path)


def check(path: str, **options) -> None:
    cfg = load_config(path, options)
    check_model(cfg, build_model(cfg), *SPLITS)


@pytest.mark.parametrize(
    ("base", "neck", "maps", "made_for"),
    [
        ("retinanet/retinanet_r50_fpn_1x_coco.py", "", "[32, 64, 128, 256, 512]",
         "model.bbox_head.anchor_generator.strides is [8, 16, 32, 64, 128]"),
        ("fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py", "", "[32, 64, 128, 256, 512]",
         "model.bbox_head.strides is [8, 16, 32, 64, 128]"),
        ("atss/atss_r50_fpn_1x_coco.py", "", "[32, 64, 128, 256, 512]",
         "model.bbox_head.anchor_generator.strides is [8, 16, 32, 64, 128]"),
        ("gfl/gfl_r50_fpn_1x_coco.py", "", "[32, 64, 128, 256, 512]",
         "model.bbox_head.anchor_generator.strides is [8, 16, 32, 64, 128]"),
        ("reppoints/reppoints-moment_r50_fpn-gn_head-gn_1x_coco.py", "", "[32, 64, 128, 256, 512]",
         "model.bbox_head.point_strides is [8, 16, 32, 64, 128]"),
        ("rpn/rpn_r50_fpn_1x_coco.py", "", "[16, 32, 64, 128, 256]",
         "model.rpn_head.anchor_generator.strides is [4, 8, 16, 32, 64]"),
        ("faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py", "", "[16, 32, 64, 128, 256]",
         "model.roi_head.bbox_roi_extractor.featmap_strides is [4, 8, 16, 32]"),
        ("mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py", "", "[16, 32, 64, 128, 256]",
         "model.roi_head.mask_roi_extractor.featmap_strides is [4, 8, 16, 32]"),
        ("cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py", "", "[16, 32, 64, 128, 256]",
         "model.roi_head.bbox_roi_extractor.featmap_strides is [4, 8, 16, 32]"),
        ("solo/solo_r50_fpn_1x_coco.py", "", "[16, 32, 64, 128, 256]",
         "before the first map is halved and without the last, is [4, 8, 16, 32]"),
    ],
)  # fmt: skip
def test_heads_made_for_other_strides_are_refused(tmp_path, base, neck, maps, made_for):
    path = write(tmp_path / "config.py", base, "in_channels=[16, 24, 32]")
    with pytest.raises(UserError) as caught:
        check(path)
    sentence = str(caught.value)
    assert f"the maps have the strides {maps}" in sentence
    assert made_for in sentence
    assert "mmvitaccel.EfficientViTFPN with num_extra_trans_convs=1" in sentence


def test_the_same_with_the_neck_that_makes_the_maps(tmp_path):
    base = "retinanet/retinanet_r50_fpn_1x_coco.py"
    check(write(tmp_path / "a.py", base, EFFICIENT_FPN.format(extra=1)))
    base = "mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py"
    check(write(tmp_path / "b.py", base, EFFICIENT_FPN.format(extra=2)))


@pytest.mark.parametrize(
    ("strides", "fits"),
    [([8, 16, 32, 64, 128], True), ([8, 16, 32, 64, 256], False), ([16, 16, 32, 64, 128], False)],
)
def test_one_stride_alone(tmp_path, strides, fits):
    path = write(
        tmp_path / "a.py",
        "retinanet/retinanet_r50_fpn_1x_coco.py",
        EFFICIENT_FPN.format(extra=1),
    )
    options = {"model.bbox_head.anchor_generator.strides": strides}
    if fits:
        check(path, **options)
        return
    with pytest.raises(UserError, match=re.escape(f"strides is {strides}")):
        check(path, **options)


def test_roi_extractors_alone(tmp_path):
    path = write(
        tmp_path / "a.py", "mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py", EFFICIENT_FPN.format(extra=2)
    )
    key = "model.roi_head.mask_roi_extractor.featmap_strides"
    with pytest.raises(UserError) as caught:
        check(path, **{key: [8, 16, 32, 64]})
    assert f"{key} is [8, 16, 32, 64]" in str(caught.value)
    assert "bbox_roi_extractor" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py",
        "yolox/yolox_tiny_8xb8-300e_coco.py",
        "rtmdet/rtmdet_tiny_8xb32-300e_coco.py",
        "yolo/yolov3_mobilenetv2_8xb24-320-300e_coco.py",
        "detr/detr_r50_8xb2-150e_coco.py",
        "sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py",
        "solo/solo_r50_fpn_1x_coco.py",
        "solo/decoupled-solo_r50_fpn_1x_coco.py",
        "solov2/solov2_r50_fpn_1x_coco.py",
    ],
)
def test_stock_configs_of_other_kinds_fit(name):
    check(f"mmdet::{name}")


def test_a_size_that_a_model_does_not_take_is_left_to_the_run(detector_config):
    cfg = load_config(str(detector_config), {})
    model = build_model(cfg)
    model.neck.lateral_convs = None
    check_strides(cfg, model)


def test_the_model_stays_in_its_mode(detector_config):
    cfg = load_config(str(detector_config), {})
    for mode in (True, False):
        model = build_model(cfg).train(mode)
        before = {k: v.clone() for k, v in model.state_dict().items()}
        check_strides(cfg, model)
        assert model.training is mode
        assert all(v.equal(before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("tool", ["train", "analysis/get_flops"])
def test_the_tools_refuse(run_tool, detector_config, capsys, tool):
    wrong = "model.bbox_head.anchor_generator.strides=[8,16]"
    with pytest.raises(SystemExit) as caught:
        run_tool(tool, detector_config, "--cfg-options", wrong)
    assert caught.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: model.backbone and neck: the maps have the strides [16, 32], ")
    assert "model.bbox_head.anchor_generator.strides is [8, 16]" in error
