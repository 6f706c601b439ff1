"""Every config of ToMe builds the model that it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, DefaultScope
from mmengine.runner import Runner

from mmvitaccel.adapters.attach import is_attached, link
from mmvitaccel.models.wrappers.target import find_target
from mmvitaccel.runner.attached_hooks import attach_hooks

CONFIGS = Path(__file__).parents[2] / "configs" / "tome"
AUDIO = "vit-small-p8_8xb64-128x80-50e_kinetics400-audio-feature_tome-r8.py"
OWN = {
    "videomae-vit-base-p16_16x4x1_kinetics400_tome-r65.py": (65, False),
    "videomae-vit-large-p16_16x4x1_kinetics400_tome-r65.py": (65, False),
    "timesformer_divST_8x32x1_kinetics400_tome-r32.py": (32, True),
    "mask-rcnn_vitdet-b_lsj-100e_coco_tome-50pct.py": (0.5, True),
    "faster-rcnn_vitdet-b_vid-1024_tome-50pct.py": (0.5, True),
    AUDIO: (8, True),
}
WITH_MMPRETRAIN = {
    "vit-base-p16_64xb64_in1k_tome-r8.py": (8, True),
    "vit-base-p16_timm-augreg_in1k_tome-r13.py": (13, True),
}


def load(name):
    if name in WITH_MMPRETRAIN:
        pytest.importorskip("mmpretrain", reason="mmpretrain is not installed")
    if "kinetics" in name:
        pytest.importorskip("mmaction", reason="mmaction2 is not installed")
    return Config.fromfile(CONFIGS / name)


def make_small(cfg):
    """Two blocks are enough to see that ToMe is on; a name says where their number is."""
    backbone = cfg.model.get("backbone", {}).get("backbone", {})
    for key in ("depth", "num_transformer_layers"):
        if key in backbone:
            backbone[key] = 2
    if backbone.get("type") == "mmvitaccel.ViTDet" or "window_block_indexes" in backbone:
        backbone.update(depth=2, window_block_indexes=(0,))
    if backbone.get("arch") == "b":
        backbone.arch = dict(embed_dims=96, num_layers=2, num_heads=3, feedforward_channels=96)
    if backbone.get("type") == "mmvitaccel.TIMMBackbone":
        backbone.update(depth=2, out_indices=(1,))
    if cfg.model.type == "TimmClassifier":
        cfg.model.update(pretrained=False, depth=2)
    return cfg


def test_every_config_is_tested():
    assert {path.name for path in CONFIGS.glob("*.py")} == {*OWN, *WITH_MMPRETRAIN}


@pytest.mark.parametrize("name", [*OWN, *WITH_MMPRETRAIN])
def test_the_model_merges_as_the_config_says(name):
    cfg = make_small(load(name))
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
        attach_hooks(cfg, model)
    _, transformer = find_target(model)
    assert is_attached(transformer, "ToMe")
    state = link(transformer).state
    assert (state.r, state.options.proportional_attention) == {**OWN, **WITH_MMPRETRAIN}[name]


def test_the_audio_recognizer_trains_and_tests(tmp_path):
    """Spectrograms of two pitches, some shorter than a clip and so padded with zeros."""
    pytest.importorskip("mmaction")
    rng = np.random.default_rng(0)
    lines = []
    for clip in range(6):
        length = 80 if clip % 3 == 2 else 160
        spectrogram = rng.normal(0, 0.1, (length, 80)).astype(np.float32)
        spectrogram[:, 10 + 50 * (clip % 2)] += 4
        np.save(tmp_path / f"clip{clip}.npy", spectrogram)
        lines.append(f"clip{clip}.npy 64 {clip % 2}\n")
    (tmp_path / "list.txt").write_text("".join(lines))
    cfg = make_small(load(AUDIO))
    cfg.model.backbone.backbone.update(embed_dim=32, num_heads=2)
    cfg.model.cls_head.update(in_channels=32, num_classes=2)
    cfg.merge_from_dict(dict(work_dir=str(tmp_path / "work"), train_cfg=dict(max_epochs=2)))
    cfg.param_scheduler = []
    for name in ("train", "val", "test"):
        loader = cfg[f"{name}_dataloader"]
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        loader.dataset.update(data_root=str(tmp_path), ann_file="list.txt")
        loader.dataset.data_prefix = dict(audio="")
    cfg.train_cfg.val_begin = 2
    with DefaultScope.overwrite_default_scope("mmaction"):
        sample = DATASETS.build(cfg.test_dataloader.dataset)[2]
        assert sample["inputs"].shape == (1, 1, 128, 80)
        assert (sample["inputs"][..., 100:, :] == 0).all()
    runner = Runner.from_cfg(cfg)
    runner.train()
    transformer = find_target(runner.model)[1]
    assert link(transformer).state.traces.last.behind[1].size.shape[1] == 161 - 16
    assert all(torch.isfinite(p).all() for p in runner.model.parameters())
    assert set(runner.test()) == {"acc/top1", "acc/top5", "acc/mean1"}
