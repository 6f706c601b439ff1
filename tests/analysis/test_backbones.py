"""Backbones of configs that tools look into."""

from __future__ import annotations

import pytest

from mmvitaccel.analysis.backbones import load_backbone
from mmvitaccel.errors import UserError


def test_a_backbone_whose_train_returns_nothing(detector_config):
    backbone = load_backbone(str(detector_config))
    assert type(backbone).__name__ == "ResNet" and not backbone.training


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
