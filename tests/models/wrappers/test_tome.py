"""The registered wrapper around a backbone or a neck of a config."""

from __future__ import annotations

import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import load_checkpoint
from torch import nn

from mmvitaccel.adapters.attach import is_attached, link

# Every test here is on a backbone of mmaction2.
pytest.importorskip("mmaction")

BARE = dict(
    type="mmaction.VisionTransformer",
    img_size=32,
    patch_size=8,
    embed_dims=32,
    depth=3,
    num_heads=4,
    num_frames=4,
)
WRAPPED = dict(type="mmvitaccel.ToMe", r=2, backbone=BARE)


def clip():
    return torch.randn(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0))


def test_the_inner_backbone_is_returned_with_tome_on():
    backbone = MODELS.build(copy.deepcopy(WRAPPED)).eval()
    bare = MODELS.build(copy.deepcopy(BARE)).eval()
    assert isinstance(backbone, type(bare))
    assert is_attached(backbone, "ToMe")
    assert link(backbone).state.r == 2
    assert [n for n, _ in backbone.named_parameters()] == [n for n, _ in bare.named_parameters()]
    assert backbone(clip()).shape == bare(clip()).shape


def test_checkpoints_go_both_ways(tmp_path):
    bare, wrapped = (MODELS.build(copy.deepcopy(cfg)).eval() for cfg in (BARE, WRAPPED))
    torch.save(dict(state_dict=bare.state_dict()), tmp_path / "bare.pth")
    load_checkpoint(wrapped, str(tmp_path / "bare.pth"), strict=True)
    assert all(torch.equal(v, wrapped.state_dict()[k]) for k, v in bare.state_dict().items())
    again = MODELS.build(copy.deepcopy(BARE)).eval()
    torch.save(dict(state_dict=wrapped.state_dict()), tmp_path / "wrapped.pth")
    load_checkpoint(again, str(tmp_path / "wrapped.pth"), strict=True)
    assert torch.equal(again(clip()), bare(clip()))
    assert not torch.allclose(wrapped(clip()), bare(clip()), atol=1e-5)


@pytest.mark.parametrize("scope", ["mmdet", "mmaction", "mmengine"])
def test_it_is_built_from_configs_of_any_scope(scope):
    cfg = Config(dict(model=copy.deepcopy(WRAPPED)))
    with DefaultScope.overwrite_default_scope(scope):
        assert is_attached(MODELS.build(cfg.model), "ToMe")
        if scope == "mmaction":
            cfg.model.backbone.type = "VisionTransformer"
            assert is_attached(MODELS.build(cfg.model), "ToMe")


def by_name(kind):
    """Settings of :func:`build_optim_wrapper` that go by a parameter's name and module."""
    if kind == "custom keys":
        keys = {"backbone.blocks.1": dict(lr_mult=0.5)}
        return dict(paramwise_cfg=dict(norm_decay_mult=0.0, custom_keys=keys))
    return dict(  # asks the backbone's class for its name too
        constructor="mmaction.LearningRateDecayOptimizerConstructor",
        paramwise_cfg=dict(decay_rate=0.5, decay_type="layer_wise", num_layers=3),
    )


@pytest.mark.parametrize("kind", ["custom keys", "layer decay"])
def test_parameter_wise_options_find_the_same_parameters(kind):
    def groups(cfg):
        model = nn.Module()
        model.backbone = MODELS.build(copy.deepcopy(cfg))
        adamw = dict(type="AdamW", lr=1e-3, weight_decay=0.05)
        optim = build_optim_wrapper(model, dict(optimizer=adamw, **by_name(kind)))
        names = {id(p): name for name, p in model.named_parameters()}
        return [
            (g["lr"], g["weight_decay"], [names[id(p)] for p in g["params"]])
            for g in optim.optimizer.param_groups
        ]

    found = groups(WRAPPED)
    assert found == groups(BARE)
    assert len({lr for lr, *_ in found}) > 1


class TransformerNeck(nn.Module):
    """A neck that runs a transformer over the last map of the backbone."""

    def __init__(self, channels):
        from mmcv.cnn.bricks.transformer import TransformerLayerSequence

        super().__init__()
        layer = dict(
            type="BaseTransformerLayer",
            attn_cfgs=dict(
                type="MultiheadAttention", embed_dims=channels, num_heads=2, batch_first=True
            ),
            ffn_cfgs=dict(type="FFN", embed_dims=channels, feedforward_channels=2 * channels),
            operation_order=("norm", "self_attn", "norm", "ffn"),
            batch_first=True,
        )
        self.encoder = TransformerLayerSequence(layer, num_layers=2)

    def forward(self, inputs):
        x = self.encoder(inputs[-1].flatten(2).transpose(1, 2), None, None)
        return (*inputs[:-1], x.transpose(1, 2).reshape(inputs[-1].shape))


def test_a_transformer_neck_in_a_detector(detector_config):
    cfg = Config.fromfile(detector_config)
    maps = [torch.randn(2, 16, 8, 8), torch.randn(2, 32, 4, 4)]
    cfg.model.neck = [
        dict(type="mmvitaccel.ToMe", r=3, neck=dict(type=TransformerNeck, channels=32)),
        dict(type="FPN", in_channels=[16, 32], out_channels=8, num_outs=2),
    ]
    with DefaultScope.overwrite_default_scope("mmdet"):
        detector = MODELS.build(cfg.model).eval()
    encoder = detector.neck[0].encoder
    assert is_attached(encoder, "ToMe")
    out = detector.neck[0](maps)
    assert [t.shape for t in out] == [t.shape for t in maps]
    assert link(encoder).state.traces.last.behind[1].size.shape == (2, 10, 1)
    assert [len(part) for part in detector(torch.rand(2, 3, 64, 64))] == [2, 2]


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        (dict(type="mmvitaccel.ToMe", r=2), "got neither of backbone"),
        (dict(type="mmvitaccel.ToMe", backbone=BARE, neck=BARE), "got backbone and neck of"),
        (dict(type="mmvitaccel.ToMe", backbone=BARE, r=-2), "r=-2 is negative"),
        (dict(type="mmvitaccel.ToMe", backbone=BARE, r=[1]), "1 entries but the model has 3"),
        (
            dict(type="mmvitaccel.ToMe", backbone=dict(type="mmdet.ResNet", depth=18)),
            r"mmdet\.models\.backbones\.resnet\.ResNet holds no supported vision transformer",
        ),
    ],
)
def test_wrong_configs_are_named(cfg, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(copy.deepcopy(cfg))
