"""Where the transformer is looked for."""

from __future__ import annotations

import pytest
import torch
from mmengine.model import MMDistributedDataParallel
from torch import nn

from mmvitaccel.models.wrappers.target import find_target


def transformer():
    from mmcv.cnn.bricks.transformer import TransformerLayerSequence

    layer = dict(
        type="BaseTransformerLayer",
        attn_cfgs=dict(type="MultiheadAttention", embed_dims=8, num_heads=2, batch_first=True),
        ffn_cfgs=dict(type="FFN", embed_dims=8, feedforward_channels=8),
        operation_order=("norm", "self_attn", "norm", "ffn"),
        batch_first=True,
    )
    return TransformerLayerSequence(layer, num_layers=1)


def model(**parts):
    built = nn.Module()
    for name, part in parts.items():
        built.add_module(name, part)
    return built


def test_the_backbone_comes_first_then_the_neck():
    both = model(backbone=transformer(), neck=nn.Sequential(transformer()))
    assert find_target(both) == ("backbone", both.backbone)
    necked = model(backbone=nn.Conv2d(3, 8, 1), neck=nn.Sequential(nn.Identity(), transformer()))
    assert find_target(necked) == ("neck.1", necked.neck[1])


def test_a_model_without_backbone_is_searched_through():
    whole = model(encoder=nn.ModuleList([transformer()]), head=nn.Linear(8, 2))
    assert find_target(whole) == ("encoder.0", whole.encoder[0])
    assert find_target(whole.encoder[0]) == ("", whole.encoder[0])


def test_target_names_a_module():
    both = model(backbone=transformer(), neck=nn.Sequential(transformer()), head=transformer())
    assert find_target(both, "neck") == ("neck.0", both.neck[0])
    assert find_target(both, "head") == ("head", both.head)
    with pytest.raises(
        ValueError, match=r"no module at target='nek'.*top-level modules are: backbone, n"
    ):
        find_target(both, "nek")
    with pytest.raises(ValueError, match="Conv2d holds no supported vision transformer"):
        find_target(model(backbone=transformer(), neck=nn.Conv2d(3, 8, 1)), "neck")


def test_what_is_not_found_or_not_unique_is_said():
    plain = model(backbone=nn.Conv2d(3, 8, 1), neck=nn.ReLU(), head=transformer())
    message = "no supported vision transformer in its backbone .*Conv2d.* and neck .*ReLU.*target"
    with pytest.raises(ValueError, match=message):
        find_target(plain)
    two = model(backbone=nn.ModuleList([transformer(), transformer()]), neck=transformer())
    with pytest.raises(ValueError, match="holds 2 vision transformers, '0'"):
        find_target(two)
    assert find_target(two, "backbone.1") == ("backbone.1", two.backbone[1])


def test_distributed_wrappers_are_seen_through(tmp_path):
    inner = model(backbone=transformer())
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    try:
        assert find_target(MMDistributedDataParallel(inner)) == ("backbone", inner.backbone)
    finally:
        torch.distributed.destroy_process_group()
