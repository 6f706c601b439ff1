"""init_cfg of type Pretrained: weights that fit are loaded whole, others are named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmvitaccel.models.vitdet.backbone import ViTDet
from mmvitaccel.models.vivit.backbone import ViViT

VITDET = dict(
    img_size=64, patch_size=8, embed_dim=24, depth=2, num_heads=3, window_size=3,
    window_block_indexes=(0,), pretrain_img_size=32,
)  # fmt: skip
VIVIT = dict(
    img_size=32, num_frames=4, tubelet_size=(2, 8, 8), embed_dim=24, spatial_depth=2,
    temporal_depth=1, num_heads=3,
)  # fmt: skip


def filled(model, seed=0):
    noise = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=noise)
    return model


def load(kind, size, weights, path, **init_cfg):
    torch.save(weights, path)
    model = kind(**size, init_cfg=dict(type="Pretrained", checkpoint=str(path), **init_cfg))
    model.init_weights()
    return model


def assert_equal(model, weights):
    for name, value in model.state_dict().items():
        assert torch.equal(value, weights[name]), name


@pytest.mark.parametrize(("kind", "size"), [(ViTDet, VITDET), (ViViT, VIVIT)])
@pytest.mark.parametrize("layout", ["plain", "converted", "prefix"])
def test_weights_that_fit(kind, size, layout, tmp_path):
    weights = dict(filled(kind(**size)).state_dict())
    if layout == "plain":
        model = load(kind, size, weights | {"head.weight": torch.ones(1)}, tmp_path / "x.pth")
    elif layout == "converted":
        held = {f"backbone.{name}": value for name, value in weights.items()}
        held = {"state_dict": held | {"neck.weight": torch.ones(1)}, "meta": {"conversion": {}}}
        model = load(kind, size, held, tmp_path / "x.pth")
    else:
        held = {f"teacher.{name}": value for name, value in weights.items()}
        model = load(kind, size, held, tmp_path / "x.pth", prefix="teacher.")
    assert_equal(model, weights)


def test_positions_of_another_size_are_resized(tmp_path):
    large = filled(ViTDet(**{**VITDET, "img_size": 128, "pretrain_img_size": 64}))
    model = load(ViTDet, VITDET, large.state_dict(), tmp_path / "x.pth")
    assert model.pos_embed.shape == (1, 17, 24)
    assert model.blocks[1].attn.rel_pos_h.shape == (15, 8)
    expected = torch.nn.functional.interpolate(
        large.blocks[1].attn.rel_pos_h.T[None], 15, mode="linear"
    )[0].T
    torch.testing.assert_close(model.blocks[1].attn.rel_pos_h, expected)
    torch.testing.assert_close(model.positions((4, 4)), large.positions((4, 4)))


def test_pre_training_without_some_parts(tmp_path):
    weights = filled(ViTDet(**VITDET)).state_dict()
    plain = {name: value for name, value in weights.items() if "rel_pos" not in name}
    model = load(ViTDet, VITDET, plain | {"cls_token": torch.ones(1)}, tmp_path / "x.pth")
    assert_equal(model, {n: weights[n] if n in plain else torch.zeros_like(weights[n])
                         for n in weights})  # fmt: skip
    weights = filled(ViViT(**VIVIT)).state_dict()
    spatial = {name: value for name, value in weights.items() if "temporal" not in name}
    model = load(ViViT, VIVIT, spatial, tmp_path / "x.pth")
    assert all(torch.equal(model.state_dict()[name], value) for name, value in spatial.items())


def without(name):
    return lambda weights: {key: value for key, value in weights.items() if key != name}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (without("blocks.1.mlp.fc2.bias"), "lacks 1 of the 31 .*first 'blocks.1.mlp.fc2.bias'"),
        (without("blocks.0.attn.rel_pos_h"), "lacks 1 of the 31 .*'blocks.0.attn.rel_pos_h'"),
        (
            lambda w: w | {"blocks.2.norm1.weight": torch.ones(24)},
            "1 of its tensors are not in ViTDet, first 'blocks.2.norm1.weight'",
        ),
        (
            lambda w: w | {"blocks.0.mlp.fc1.bias": torch.ones(48)},
            r"'blocks.0.mlp.fc1.bias' is \(48,\) in it and \(96,\) in ViTDet",
        ),
        (
            lambda w: {f"module.backbone.net.{n}": v for n, v in w.items()},
            "has no weights of ViTDet, .*convert it with tools/convert_checkpoint.py",
        ),
    ],
)
def test_weights_of_another_model_are_named(change, sentence, tmp_path):
    weights = dict(filled(ViTDet(**VITDET)).state_dict())
    with pytest.raises(ValueError, match=rf"x\.pth: .*{sentence}") as error:
        load(ViTDet, VITDET, change(weights), tmp_path / "x.pth")
    assert "\n" not in str(error.value)


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def test_a_hostile_file_does_not_run(tmp_path):
    marker = tmp_path / "marker"
    weights = dict(filled(ViTDet(**VITDET)).state_dict()) | {"extra": Hostile(marker)}
    with pytest.raises(ValueError, match=r"x\.pth: refused, because the file asks for pathlib"):
        load(ViTDet, VITDET, weights, tmp_path / "x.pth")
    assert not marker.exists()
    torch.load(tmp_path / "x.pth", weights_only=False)
    assert marker.exists()
