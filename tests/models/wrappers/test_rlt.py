"""The registered wrapper and hook of run-length tokenization."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import HOOKS, MODELS
from torch import nn

from mmvitaccel.adapters.attach import is_attached, links

VIVIT = dict(
    type="mmvitaccel.ViViT",
    img_size=32,
    num_frames=8,
    tubelet_size=(2, 8, 8),
    embed_dim=32,
    spatial_depth=2,
    temporal_depth=1,
    num_heads=4,
)
WRAPPED = dict(type="mmvitaccel.RLT", threshold=0.0, backbone=VIVIT)


def clips():
    x = torch.randn(2, 3, 8, 32, 32, generator=torch.Generator().manual_seed(0))
    x[:, :, 2:4] = x[:, :, :2]
    return x


def test_the_inner_backbone_is_returned_with_rlt_on():
    bare = MODELS.build(copy.deepcopy(VIVIT)).eval()
    backbone = MODELS.build(copy.deepcopy(WRAPPED)).eval()
    backbone.load_state_dict(bare.state_dict())
    assert isinstance(backbone, type(bare)) and is_attached(backbone, "RLT")
    steps = bare.forward_spatial(clips())
    expected = bare.forward_temporal(steps[:, [0, 0, 2, 3]])
    assert torch.allclose(backbone(clips()), expected, atol=1e-6)


@pytest.mark.parametrize("outer", ["RLT", "ToMe"])
def test_with_tome_one_within_the_other(outer):
    inner = dict(RLT="ToMe", ToMe="RLT")[outer]
    options = dict(RLT=dict(threshold=0.0), ToMe=dict(r=2))
    backbone = dict(type=f"mmvitaccel.{inner}", backbone=copy.deepcopy(VIVIT), **options[inner])
    built = MODELS.build(
        dict(type=f"mmvitaccel.{outer}", backbone=backbone, **options[outer])
    ).eval()
    assert [found.method for found in links(built)] == ["ToMe", "RLT"]
    assert torch.isfinite(built(clips())).all()


def test_the_hook_puts_it_on_for_a_run():
    model = nn.Module()
    model.backbone = MODELS.build(copy.deepcopy(VIVIT))
    hook = HOOKS.build(dict(type="mmvitaccel.RLTHook", threshold=0.2))
    logger = MMLogger.get_instance("rlt")
    hook.before_run(SimpleNamespace(model=model, logger=logger))
    assert is_attached(model.backbone, "RLT") and hook.handle.threshold == 0.2
    hook.after_run(None)
    assert not is_attached(model.backbone)
