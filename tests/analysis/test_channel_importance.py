"""Taylor importance against its definition, and the tool on a detector's own loss."""

from __future__ import annotations

import json

import pytest
import timm
import torch
from torch import nn

from mmvitaccel.analysis.channel_importance import (
    channel_importance,
    mean_importance,
    taylor_importance,
)
from mmvitaccel.errors import UserError
from mmvitaccel.models.efficientvit.backbone import EfficientViT
from mmvitaccel.runner.config import load_config
from mmvitaccel.runner.session import build_model

NARROW = dict(embed_dims=(16, 24, 32), depths=(1, 1, 1), num_heads=(2, 3, 2), kernels=(5, 3, 3))


def test_it_is_the_change_of_the_loss_to_first_order():
    torch.manual_seed(0)
    layer, x = nn.Linear(5, 3).double(), torch.randn(4, 5).double()
    layer(x).square().sum().backward()
    importance = taylor_importance(layer.weight, layer.weight.grad)
    assert importance.shape == (3,)
    step = 1e-6
    for channel in range(3):
        change = 0.0
        for column in range(5):
            with torch.no_grad():
                before = layer(x).square().sum()
                kept = layer.weight[channel, column].clone()
                layer.weight[channel, column] *= 1 - step
                change += abs((layer(x).square().sum() - before).item()) / step
                layer.weight[channel, column] = kept
        assert importance[channel].item() == pytest.approx(change, rel=1e-3)


def test_structures_of_efficientvit():
    torch.manual_seed(0)
    model = EfficientViT(arch=NARROW).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
    sum(out.square().sum() for out in model(torch.randn(1, 3, 64, 64))).backward()
    found = channel_importance(model)
    head = found["blocks1.0.mixer.m.attn.qkvs.1"]
    assert {kind: len(values) for kind, values in head.items()} == dict(Q=16, K=16, V=8)
    assert len(found["blocks1.0.ffn0.m"]["FFN"]) == 32
    conv = model.blocks1[0].mixer.m.attn.qkvs[1].c
    by_hand = (conv.weight * conv.weight.grad).abs().sum((1, 2, 3))
    torch.testing.assert_close(torch.tensor(head["K"]), by_hand[16:32].detach())
    assert by_hand.sum() > 0
    assert set(mean_importance(found)) == {"Q", "K", "V", "FFN"}


def test_structures_of_a_plain_transformer():
    model = timm.create_model("vit_tiny_patch16_224", depth=1, img_size=32, num_classes=2)
    model(torch.randn(1, 3, 32, 32)).sum().backward()
    found = channel_importance(model)
    channels = {kind: len(values) for kind, values in found["blocks.0.attn"].items()}
    assert channels == dict(Q=192, K=192, V=192)
    assert len(found["blocks.0.mlp"]["FFN"]) == 768
    grad = model.blocks[0].attn.qkv.weight.grad
    by_hand = (model.blocks[0].attn.qkv.weight * grad).abs().sum(1)[384:].detach()
    torch.testing.assert_close(torch.tensor(found["blocks.0.attn"]["V"]), by_hand)


def test_nothing_to_rank():
    with pytest.raises(UserError, match="Linear: nothing to rank"):
        channel_importance(nn.Linear(2, 2))


def test_tool(run_tool, efficientvit_config, tmp_path, capsys):
    model = build_model(load_config(str(efficientvit_config), {}))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / "model.pth")
    options = ["--batches", 2, "--json", "f.json"]
    run_tool("analysis/channel_importance", efficientvit_config, "model.pth", *options)
    out = capsys.readouterr().out
    found = json.loads((tmp_path / "f.json").read_text())
    assert "model.pth, mean loss" in out
    assert all(name in out for name in found)
    zero = {name for name, block in found.items() for kind in block if not any(block[kind])}
    # images of 64 pixels: in the last stage one token attends to itself, whatever its query
    assert zero == {f"backbone.blocks3.3.mixer.m.attn.qkvs.{head}" for head in (0, 1)}
    mean = mean_importance(found)["V"]
    assert f"{mean:.2e}" in out.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [(["--batches", 0], "--batches 0: give 1 or more"), ([], "give a trained checkpoint")],
)
def test_tool_mistakes(run_tool, efficientvit_config, capsys, options, sentence):
    with pytest.raises(SystemExit):
        run_tool("analysis/channel_importance", efficientvit_config, *options)
    assert sentence in capsys.readouterr().err
