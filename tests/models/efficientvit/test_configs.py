"""The configs build the detectors that they name, and these train and predict."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope, init_default_scope
from mmengine.structures import InstanceData

import mmvitaccel
from mmvitaccel.models.efficientvit.arch import ARCHS

CONFIGS = Path(mmvitaccel.__file__).parents[1] / "configs"
if not CONFIGS.is_dir():  # an installed wheel
    CONFIGS = Path(mmvitaccel.__file__).parent / ".mim" / "configs"
RETINANETS = [f"retinanet_efficientvit_{arch}_coco.py" for arch in ARCHS]
MASK_RCNN = "mask-rcnn_efficientvit_m4_coco.py"


@pytest.fixture(autouse=True)
def _mmdet_scope():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    before = DefaultScope.get_current_instance()
    init_default_scope("mmdet")
    yield
    if before is not None:
        init_default_scope(before.scope_name)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Work from a folder that is not the checkout."""
    monkeypatch.chdir(tmp_path)


def sample(height: int, width: int):
    """One image with one object, as mmdet's data preprocessor hands it on."""
    structures = importlib.import_module("mmdet.structures")
    masks = importlib.import_module("mmdet.structures.mask")
    size = (height, width)
    out = structures.DetDataSample(
        metainfo=dict(
            img_id=0,
            img_shape=size,
            ori_shape=size,
            pad_shape=size,
            batch_input_shape=size,
            scale_factor=(1.0, 1.0),
        )
    )
    out.gt_instances = InstanceData(
        bboxes=torch.tensor([[10.0, 10.0, 70.0, 80.0]]),
        labels=torch.tensor([3]),
        masks=masks.BitmapMasks(np.ones((1, height, width), dtype=np.uint8), height, width),
    )
    out.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0).long())
    return out


@pytest.mark.parametrize("name", [*RETINANETS, MASK_RCNN])
def test_config_follows_the_recipe_and_builds(name, elsewhere):
    cfg = Config.fromfile(CONFIGS / name)
    arch = name.split("_")[2] if name in RETINANETS else "m4"
    assert cfg.model.backbone.arch == arch and cfg.model.backbone.norm_eval
    assert tuple(cfg.model.neck.in_channels) == ARCHS[arch]["embed_dims"]
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ("AdamW", 1e-4, 0.05)
    assert optimizer.betas == (0.9, 0.999)
    keys = cfg.optim_wrapper.paramwise_cfg.custom_keys
    assert keys.to_dict() == dict(attention_biases=dict(decay_mult=0.0))
    warmup, steps = cfg.param_scheduler
    assert (warmup.type, warmup.start_factor, warmup.end) == ("LinearLR", 0.001, 500)
    assert steps.milestones == [8, 11] and cfg.train_cfg.max_epochs == 12
    assert cfg.auto_scale_lr.base_batch_size == 16 and cfg.train_dataloader.batch_size == 2
    assert cfg.train_dataloader.dataset.data_root == "data/coco/"
    assert cfg.model.data_preprocessor.pad_size_divisor == 32
    scales = [step.scale for step in cfg.train_dataloader.dataset.pipeline if "scale" in step]
    assert scales == [(1333, 800)]

    model = MODELS.build(cfg.model)
    strides = [8, 16, 32, 64, 128] if name in RETINANETS else [4, 8, 16, 32, 64]
    maps = model.eval().extract_feat(torch.rand(1, 3, 128, 256))
    assert [tuple(m.shape[2:]) for m in maps] == [(128 // s, 256 // s) for s in strides]
    generator = (model.bbox_head if name in RETINANETS else model.rpn_head).prior_generator
    assert [stride[0] for stride in generator.strides] == strides


@pytest.mark.parametrize("name", [RETINANETS[4], MASK_RCNN])
def test_detector_learns_predicts_and_folds(name, elsewhere, randomise):
    cfg = Config.fromfile(CONFIGS / name)
    if name == MASK_RCNN:  # fewer proposals: a test on one core
        cfg.model.train_cfg.rpn_proposal.max_per_img = 100
        cfg.model.train_cfg.rcnn.sampler.num = 32
        cfg.model.test_cfg.rpn.max_per_img = 50
    model = MODELS.build(cfg.model).train()
    model.init_weights()
    randomise(model.backbone)
    images, samples = torch.randn(1, 3, 96, 128), [sample(96, 128)]
    total, _ = model.parse_losses(model.loss(images, samples))
    assert torch.isfinite(total) and total > 0
    total.backward()
    assert [k for k, p in model.named_parameters() if p.grad is None] == []
    model.eval()
    with torch.no_grad():
        (out,) = model.predict(images, samples)
        assert out.pred_instances.bboxes.shape[1] == 4
        assert ("masks" in out.pred_instances) == (name == MASK_RCNN)
        before = model.extract_feat(images)
        model.backbone.switch_to_deploy()
        for folded, plain in zip(model.extract_feat(images), before):
            tolerance = 1e-4 * plain.abs().max().item()
            torch.testing.assert_close(folded, plain, rtol=0, atol=tolerance)


def test_metafile_names_configs_that_exist_and_separates_published_figures():
    meta = yaml.safe_load((CONFIGS / "metafile.yml").read_text())
    assert [c["Name"] for c in meta["Collections"]] == ["EfficientViT (Microsoft)"]
    entries = {os.path.basename(m["Config"]): m for m in meta["Models"]}
    assert set(entries) == {*RETINANETS, MASK_RCNN}
    for name, entry in entries.items():
        assert (CONFIGS / name).is_file() and entry["Name"] == name[: -len(".py")]
        for result in entry.get("Results", []):
            assert result["Source"] == "published by the authors"
