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


def timm_weights(name="vit_tiny_patch16_224", **options):
    torch.manual_seed(0)
    return timm.create_model(name, **options).state_dict()


def pretrained(path, weights, **options):
    """A backbone with the weights by its ``init_cfg``."""
    torch.save(weights, path)
    init_cfg = dict(type="Pretrained", checkpoint=str(path))
    backbone = MODELS.build(
        dict(type="mmvitaccel.TIMMBackbone", features_only=True, init_cfg=init_cfg, **options)
    )
    backbone.init_weights()
    return backbone.eval()


SIZES = dict(model_name="vit_tiny_patch16_224", img_size=64, embed_dim=32, num_heads=2)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_tiny_patch16_224", dict(SIZES, depth=4, out_indices=(1, 2))),
        ("convnext_atto", dict(model_name="convnext_atto", out_indices=(0, 2))),
        ("resnet10t", dict(model_name="resnet10t")),
        ("efficientnet_b0", dict(model_name="efficientnet_b0")),
    ],
)
def test_a_file_of_timms_names_is_taken_without_what_is_behind_the_maps(tmp_path, name, options):
    sizes = {k: v for k, v in options.items() if k not in ("out_indices", "model_name")}
    weights = timm_weights(name, **sizes)
    backbone = pretrained(tmp_path / "a.pth", weights, **options)
    whole = timm.create_model(name, features_only=True, out_indices=options.get("out_indices"),
                              **sizes) if name != "resnet10t" else None  # fmt: skip
    own = backbone.state_dict()
    plain = {key.replace("_", "."): value for key, value in weights.items()}
    root = backbone._root()
    assert all(
        torch.equal(v, plain[k.removeprefix(root).replace("_", ".")]) for k, v in own.items()
    )
    assert whole is None or len(whole.state_dict()) == len(own) < len(weights)


def test_tokens_of_a_file_with_a_head_and_of_a_models_checkpoint(tmp_path):
    weights = timm_weights(img_size=64, embed_dim=32, num_heads=2, depth=2)
    options = dict(SIZES, depth=2)
    init_cfg = dict(type="Pretrained", checkpoint=str(tmp_path / "a.pth"))
    cfg = dict(type="mmvitaccel.TIMMBackbone", init_cfg=init_cfg, **options)
    torch.save(weights, tmp_path / "a.pth")
    backbone = MODELS.build(cfg)
    backbone.init_weights()
    assert torch.equal(backbone.timm_model.norm.weight, weights["norm.weight"])
    assert torch.equal(backbone.timm_model.cls_token, weights["cls_token"])
    saved = {f"backbone.{key}": value for key, value in backbone.state_dict().items()}
    torch.save(dict(state_dict=saved, meta={}), tmp_path / "a.pth")
    again = MODELS.build(cfg)
    again.init_weights()
    assert all(torch.equal(v, saved[f"backbone.{k}"]) for k, v in again.state_dict().items())


def test_the_first_convolution_is_adapted_to_grey_images(tmp_path):
    weights = timm_weights("convnext_atto")
    backbone = pretrained(tmp_path / "a.pth", weights, model_name="convnext_atto", in_channels=1)
    stem = backbone.state_dict()["timm_model.stem_0.weight"]
    torch.testing.assert_close(stem, weights["stem.0.weight"].sum(1, keepdim=True))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: {f"net.other.{k}": v for k, v in w.items()}, "it has no weights of TIMMBackb"),
        (lambda w: timm_weights("resnet10t"), "it has no weights of TIMMBackbone vit_tiny"),
        (lambda w: w | dict(reg_token=torch.zeros(1, 4, 32)), "not in TIMMBackbone.*reg_token"),
        (lambda w: {k: v for k, v in w.items() if "blocks.1.mlp" not in k}, "it lacks 4 of the 40"),
        (lambda w: w | dict(pos_embed=torch.zeros(1, 197, 32)), r"pos_embed' is \(1, 197, 32\) in "
            r"it and \(1, 17, 32\) .* let timm load it with pretrained=True"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_refused(tmp_path, change, said):
    weights = change(timm_weights(img_size=64, embed_dim=32, num_heads=2, depth=4))
    options = dict(SIZES, depth=4, out_indices=(1, 2))
    with pytest.raises(ValueError, match=said):
        pretrained(tmp_path / "a.pth", weights, **options)


def test_an_unknown_name_is_named():
    with pytest.raises(
        ValueError, match="no model 'vit_tinny_patch16_224'; similar names: vit_tiny"
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
