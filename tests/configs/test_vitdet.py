"""The ViTDet configs have the released recipe and sizes, and run small."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from torch import nn

from mmvitaccel.registry import MODELS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "configs" / "vitdet"
NAMES = ["faster-rcnn", "mask-rcnn", "cascade-mask-rcnn"]


pytestmark = pytest.mark.usefixtures("metafiles_read_once")


def load(name):
    return Config.fromfile(FOLDER / f"{name}_vitdet-b_lsj-100e_coco.py")


def build(cfg, device="cpu"):
    with DefaultScope.overwrite_default_scope("mmdet"), torch.device(device):
        return MODELS.build(copy.deepcopy(cfg.model))


def test_recipe_is_the_released_one():
    cfg = load("mask-rcnn")
    model = build(cfg, "meta")
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    settings = {id(g["params"][0]): (g["lr"] / 1e-4, g["weight_decay"]) for g in groups}
    norms = (m for m in model.modules() if isinstance(m, nn.LayerNorm))
    undecayed = {id(p) for norm in norms for p in norm.parameters()}
    undecayed.add(id(model.backbone.pos_embed))
    for name, parameter in model.named_parameters():
        decay = 0.0 if id(parameter) in undecayed else 0.1
        depth = 13
        if name.startswith("backbone.blocks."):
            depth = int(name.split(".")[2]) + 1
        elif name.startswith("backbone."):
            depth = 0
        assert settings[id(parameter)] == pytest.approx((0.7 ** (13 - depth), decay)), name
    assert cfg.train_dataloader.batch_size * 32 == cfg.auto_scale_lr.base_batch_size == 64
    rounds = cfg.train_cfg.max_epochs * cfg.train_dataloader.dataset.times
    assert rounds == 100 and cfg.param_scheduler[1].milestones == [22, 24]


@pytest.mark.parametrize("name", NAMES)
def test_small_siblings_train_and_detect(name):
    cfg = load(name)
    small = dict(img_size=64, patch_size=16, embed_dim=32, depth=2, num_heads=2, window_size=3)
    cfg.model.backbone.update(small, window_block_indexes=(0,))
    cfg.model.neck.in_channels = 32
    cfg.model.data_preprocessor.pad_size_divisor = 64
    cfg.model.train_cfg.rpn_proposal.max_per_img = cfg.model.test_cfg.rpn.max_per_img = 10
    model = build(cfg)
    from mmdet.structures.mask import BitmapMasks  # the stack's gaps are closed by now

    sample = DetDataSample(metainfo=dict(
        img_shape=(48, 64), ori_shape=(48, 64), scale_factor=(1.0, 1.0), img_id=0
    ))  # fmt: skip
    truth = InstanceData(bboxes=torch.tensor([[4.0, 4.0, 40.0, 40.0]]), labels=torch.tensor([3]))
    truth.masks = BitmapMasks(np.ones((1, 48, 64), np.uint8), 48, 64)
    sample.gt_instances = truth
    batch = dict(inputs=[torch.zeros(3, 48, 64)], data_samples=[sample])
    losses = model(**model.data_preprocessor(copy.deepcopy(batch), True), mode="loss")
    loss, _ = model.parse_losses(losses)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad is not None for n, p in model.named_parameters())
    with torch.no_grad():
        (result,) = model.eval().test_step(batch)
    assert ("masks" in result.pred_instances) == ("mask" in name)


def test_metafile_names_the_configs_and_their_sizes():
    listed = yaml.safe_load((FOLDER / "metafile.yml").read_text())["Models"]
    assert {ROOT / model["Config"] for model in listed} == set(FOLDER.glob("*.py"))
    for model in listed:
        name = model["Name"].split("_vitdet")[0]
        parameters = sum(p.numel() for p in build(load(name), "meta").parameters())
        assert model["Metadata"]["Parameters"] == parameters
