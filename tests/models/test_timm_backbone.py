"""timm's models by name in configs."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmvitaccel.adapters.attach import is_attached

timm = pytest.importorskip("timm", reason="timm is not installed")

VIT = dict(
    type="mmvitaccel.TIMMBackbone",
    model_name="vit_tiny_patch16_224",
    features_only=True,
    out_indices=(1, 3),
    img_size=64,
    depth=4,
    embed_dim=32,
    num_heads=2,
)


def test_features_only_gives_maps():
    backbone = MODELS.build(dict(VIT)).eval()
    maps = backbone(torch.randn(2, 3, 64, 64))
    assert [m.shape for m in maps] == [(2, 32, 4, 4)] * 2
    expected = backbone.timm_model(torch.ones(1, 3, 64, 64))
    assert all(torch.equal(a, b) for a, b in zip(backbone(torch.ones(1, 3, 64, 64)), expected))


def test_other_models_than_transformers_are_served():
    maps = MODELS.build(
        dict(type="mmvitaccel.TIMMBackbone", model_name="resnet10t", features_only=True)
    )(torch.randn(1, 3, 64, 64))
    assert [m.shape[-1] for m in maps] == [32, 16, 8, 4, 2]


def test_without_features_only_it_gives_tokens_and_has_no_head():
    cfg = dict(VIT, features_only=False, out_indices=None)
    backbone = MODELS.build({k: v for k, v in cfg.items() if v is not None})
    (tokens,) = backbone(torch.randn(2, 3, 64, 64))
    assert tokens.shape == (2, 17, 32)
    assert not [name for name in backbone.state_dict() if "head" in name]


def test_one_channel_and_a_single_map():
    backbone = MODELS.build(dict(VIT, in_channels=1, as_tuple=False))
    assert backbone(torch.randn(2, 1, 64, 64)).shape == (2, 32, 4, 4)


def test_loaded_weights_are_not_initialised_again(tmp_path):
    source = timm.create_model("vit_tiny_patch16_224", depth=2, embed_dim=32, num_heads=2)
    torch.save(source.state_dict(), tmp_path / "vit.pth")
    backbone = MODELS.build(
        dict(
            type="mmvitaccel.TIMMBackbone",
            model_name="vit_tiny_patch16_224",
            pretrained=True,
            pretrained_cfg_overlay=dict(file=str(tmp_path / "vit.pth")),
            num_classes=1000,
            depth=2,
            embed_dim=32,
            num_heads=2,
        )
    )
    backbone.init_weights()
    for name, value in source.state_dict().items():
        assert torch.equal(backbone.timm_model.state_dict()[name], value)


def test_an_unknown_name_is_named():
    with pytest.raises(
        ValueError, match="no model 'vit_tinny_patch16_224'; the nearest of its names: vit_tiny"
    ):
        MODELS.build(dict(type="mmvitaccel.TIMMBackbone", model_name="vit_tinny_patch16_224"))


def test_tome_in_a_detector_with_a_timm_backbone(detector_config):
    cfg = Config.fromfile(detector_config)
    cfg.model.backbone = dict(type="mmvitaccel.ToMe", r=2, backbone=dict(VIT))
    cfg.model.neck.in_channels = [32, 32]
    with DefaultScope.overwrite_default_scope("mmdet"):
        detector = MODELS.build(cfg.model).eval()
    assert is_attached(detector.backbone.timm_model.model, "ToMe")
    with torch.no_grad():
        merged = detector.extract_feat(torch.rand(1, 3, 64, 64))
    assert [m.shape for m in merged] == [(1, 8, 4, 4)] * 2
