"""Backbones of configs that tools look into."""

from __future__ import annotations

import pytest
from mmengine.config import Config

from mmvitaccel.analysis.backbones import load_backbone
from mmvitaccel.deploy.onnx_export import build_part
from mmvitaccel.errors import UserError


def test_a_backbone_whose_train_returns_nothing(detector_config):
    backbone = load_backbone(str(detector_config))
    assert type(backbone).__name__ == "ResNet" and not backbone.training


TRACKER = """
model = dict(
    type='mmdet.ByteTrack', detector=model, data_preprocessor=dict(type='TrackDataPreprocessor'),
    tracker=dict(type='mmdet.ByteTracker', motion=dict(type='KalmanFilter')))
"""


def test_of_a_tracker_it_is_the_detectors(detector_config):
    pytest.importorskip("lap", reason="ByteTracker needs the package lap")
    with detector_config.open("a") as file:
        file.write(TRACKER)
    assert type(load_backbone(str(detector_config))).__name__ == "ResNet"
    backbone = build_part(Config.fromfile(detector_config), None, "backbone", True)
    assert type(backbone).__name__ == "ResNet" and not backbone.training
    with pytest.raises(UserError, match="ByteTrack"):
        build_part(Config.fromfile(detector_config), None, "model", True)


def test_a_backbone_of_clips_is_refused(recognizer_config):
    message = r"VisionTransformer takes clips \(NCTHW\).*give the config of an image model"
    with pytest.raises(UserError, match=message):
        load_backbone(str(recognizer_config))


def test_tools_with_a_backbone_of_convolutions(detector_config, boxes, run_tool, capsys):
    run_tool("analysis/profile_ops", detector_config, "--batch", 1, "--side", 32, "--rounds", 1)
    assert "detector" in capsys.readouterr().out
    options = ["--images", boxes / "images", "--count", 1, "--side", 32]
    with pytest.raises(SystemExit, match="2"):
        run_tool("analysis/head_similarity", detector_config, *options)
    assert "holds no supported vision transformer" in capsys.readouterr().err
