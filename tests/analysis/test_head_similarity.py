"""Similarity of heads, on maps that are known and against attention as the models compute it."""

from __future__ import annotations

import json
from contextlib import ExitStack

import cv2
import numpy as np
import pytest
import timm
import torch
from torch import nn

from mmvitaccel.analysis.head_similarity import head_similarity, similarity_by_block, watch
from mmvitaccel.errors import UserError
from mmvitaccel.models.efficientvit.backbone import EfficientViT
from mmvitaccel.models.vitdet.backbone import ViTDet

NARROW = dict(embed_dims=(16, 24, 32), depths=(1, 1, 1), num_heads=(2, 3, 1), kernels=(5, 3, 3))


def maps_of(model, x):
    found = {}
    with ExitStack() as stack, torch.no_grad():
        watch(model, found.__setitem__, stack)
        model(x)
    return found


def test_of_known_maps():
    one, other = torch.zeros(2, 3, 3)
    one[0, 0], other[1, 1] = 1, 1
    mixed = one + other
    maps = torch.stack([torch.stack([one, one, other]), torch.stack([one, other, mixed])])
    # heads 1, 2 alike and 3 apart; then each closest to the mixture, at 45 degrees
    torch.testing.assert_close(head_similarity(maps), torch.tensor([2 / 3, 0.5**0.5]))


def test_maps_of_efficientvit_give_its_output():
    torch.manual_seed(0)
    model = EfficientViT(arch=NARROW, window_size=7).eval()
    attn = model.blocks1[0].mixer.m.attn
    nn.init.normal_(attn.attention_biases)
    kept = {}
    attn.qkvs[1].register_forward_hook(lambda m, i, out: kept.update(v=out[:, 32:].flatten(2)))
    attn.proj[0].register_forward_hook(lambda m, i, out: kept.update(heads=i[0].flatten(2)))
    maps = maps_of(model, torch.randn(2, 3, 160, 96))
    assert list(maps) == [f"blocks{n}.{i}.mixer.m.attn" for n, i in ((1, 0), (2, 3), (3, 3))]
    assert maps["blocks1.0.mixer.m.attn"].shape == (4, 2, 49, 49)
    second = maps["blocks1.0.mixer.m.attn"][:, 1]
    torch.testing.assert_close(kept["heads"][:, 8:], kept["v"] @ second.transpose(1, 2))


def test_maps_of_timm_are_its_own():
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", depth=2, img_size=64).eval()
    expected = []
    for block in model.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda m, i, out: expected.append(out))
    maps = maps_of(model, torch.randn(2, 3, 64, 64))
    assert list(maps) == ["blocks.0", "blocks.1"]
    for own, other in zip(maps.values(), expected):
        torch.testing.assert_close(own, other)


def test_maps_of_vitdet_have_positions_and_windows():
    torch.manual_seed(0)
    arch = dict(img_size=128, embed_dim=32, depth=2, num_heads=2, window_size=5)
    model = ViTDet(**arch, window_block_indexes=(0,)).eval()
    for name, parameter in model.named_parameters():
        if "rel_pos" in name:
            nn.init.normal_(parameter)
    values = {}
    for name, block in model.named_modules():
        if hasattr(block, "attn"):
            block.attn.proj.register_forward_pre_hook(
                lambda m, args, name=name: values.update({name: args[0]})
            )
    x = torch.randn(1, 3, 128, 128)
    maps = maps_of(model, x)
    assert [tuple(m.shape) for m in maps.values()] == [(4, 2, 25, 25), (1, 2, 64, 64)]
    kept = {}
    block = model.blocks[1]
    block.attn.qkv.register_forward_hook(lambda m, i, out: kept.update(qkv=out))
    with torch.no_grad():
        model(x)
    v = kept["qkv"].reshape(1, 64, 3, 2, 16)[:, :, 2].transpose(1, 2)
    attended = (maps["blocks.1"] @ v).transpose(1, 2).reshape(1, 64, 32)
    torch.testing.assert_close(values["blocks.1"].reshape(1, 64, 32), attended)


def test_blocks_of_one_head_are_left_out():
    found = similarity_by_block(EfficientViT(arch=NARROW).eval(), torch.randn(1, 3, 64, 64))
    assert [name.partition(".")[0] for name in found] == ["blocks1", "blocks2"]
    assert all(0 < value <= 1 for value in found.values())


def test_a_model_without_attention_is_refused():
    with pytest.raises(UserError, match="holds no supported vision transformer"):
        similarity_by_block(nn.Conv2d(3, 1, 1), torch.randn(1, 3, 8, 8))


def test_tool(run_tool, tmp_path, capsys):
    rng = np.random.default_rng(0)
    for index in range(3):
        noise = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / f"{index}.png"), noise)
    options = ["--images", tmp_path, "--count", 2]
    run_tool("analysis/head_similarity", "deit_tiny_patch16_224", *options, "--json", "f.json")
    out = capsys.readouterr().out
    assert "random weights, 2 images of 224 x 224" in out
    found = json.loads((tmp_path / "f.json").read_text())
    assert len(found) == 12
    assert f"{sum(found.values()) / 12:.3f}" in out.splitlines()[-1]
    with pytest.raises(SystemExit):
        run_tool("analysis/head_similarity", "vit_tinny_patch16_224", *options)
    assert "did you mean 'vit_tiny_patch16_224'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run_tool("analysis/head_similarity", "deit_tiny_patch16_224", "--images", tmp_path / "no")
    assert "has no .jpg or .png images" in capsys.readouterr().err
