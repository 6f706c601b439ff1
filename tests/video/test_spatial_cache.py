"""Two steps: spatial features on disk, then the temporal encoder by itself."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, init_default_scope

from mmvitaccel.compat.checkpoint import safe_load
from mmvitaccel.datasets.motion_clips import MotionSetSettings, make_motion_set
from mmvitaccel.datasets.spatial_features import LoadSpatialFeatures
from mmvitaccel.errors import UserError
from mmvitaccel.runner.session import build_model
from mmvitaccel.video.spatial_cache import cache_spatial

ROOT = Path(__file__).parents[2]
DENSE = ROOT / "configs/vivit/vivit-tiny_16x1x1_motion-clips.py"
TEMPORAL = ROOT / "configs/eventful/tiny/_base_/vivit-tiny_16x1x1_motion-clips_temporal.py"


def load_tool(name: str):
    spec = importlib.util.spec_from_file_location(Path(name).stem, ROOT / "tools" / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    settings = MotionSetSettings(num_train=8, num_val=5, num_frames=20)
    return make_motion_set(tmp_path_factory.mktemp("motion") / "clips", settings)


def dense_config(clips: Path) -> Config:
    """The tiny config with a smaller model, and three views a test clip."""
    cfg = Config.fromfile(DENSE)
    cfg.model.backbone.update(embed_dim=16, spatial_depth=2, temporal_depth=1, num_heads=2)
    cfg.model.cls_head.in_channels = 16
    cfg.test_dataloader.dataset.pipeline[1].num_clips = 3
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False, batch_size=4)
        loader.dataset.data_root = str(clips)
    return cfg


def temporal_config(features: Path) -> Config:
    cfg = Config.fromfile(TEMPORAL)
    cfg.model.backbone.update(embed_dim=16, spatial_depth=2, temporal_depth=1, num_heads=2)
    cfg.model.cls_head.in_channels = 16
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False, batch_size=4)
        loader.dataset.data_root = str(features)
    cfg.load_from = str(features / "weights.pth")
    cfg.train_cfg.max_epochs = 2
    return cfg


@pytest.fixture
def checkpoint(clips, tmp_path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "dense.pth"
    torch.save({"state_dict": build_model(dense_config(clips)).state_dict()}, path)
    return path


def test_features_are_those_of_the_model(clips, checkpoint, tmp_path):
    cfg = dense_config(clips)
    cache_spatial(cfg, str(checkpoint), tmp_path / "out", batch_size=2, num_workers=0)
    model = build_model(cfg).eval()
    model.load_state_dict(torch.load(checkpoint, weights_only=True)["state_dict"])
    init_default_scope("mmaction")
    for split, count, dataset in (
        (
            "train",
            8,
            {**cfg.train_dataloader.dataset, "pipeline": cfg.test_dataloader.dataset.pipeline},
        ),
        ("val", 5, cfg.test_dataloader.dataset),
    ):
        samples = json.loads((tmp_path / "out" / split / "index.json").read_text())["samples"]
        assert [s["label"] for s in samples] == [i % 7 for i in range(count)]
        dataset = DATASETS.build(dataset)
        for index in (0, count - 1):
            batch = model.data_preprocessor(pseudo_collate([dataset[index]]), False)
            with torch.no_grad():
                expected = model.backbone.forward_spatial(batch["inputs"][0])
            cached = np.load(tmp_path / "out" / split / samples[index]["file"])
            assert cached.shape == (3, 8, 16)
            torch.testing.assert_close(torch.from_numpy(cached), expected, rtol=0, atol=1e-5)


class Stopped(Exception):
    pass


def test_goes_on_where_it_was_stopped(clips, checkpoint, tmp_path):
    cfg, out = dense_config(clips), tmp_path / "out"

    def stop_at_three(split, done, total):
        if done == 3:
            raise Stopped

    with pytest.raises(Stopped):
        cache_spatial(cfg, str(checkpoint), out, num_workers=0, progress=stop_at_three)
    stamps = {p: p.stat().st_mtime_ns for p in out.glob("train/*.npy")}
    assert len(stamps) == 3
    init_default_scope("mmaction")
    with pytest.raises(
        ValueError, match=r"lacks 5 of 8 clips, first '0000003\.npy'; run tools/cache"
    ):
        DATASETS.build(temporal_config(out).train_dataloader.dataset)
    told = []
    cache_spatial(cfg, str(checkpoint), out, num_workers=0, progress=lambda *a: told.append(a))
    assert told[0] == ("train", 4, 8)
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps
    assert len(list(out.glob("*/*.npy"))) == 13
    # Shares of several processes meet in one folder.
    for part in ((0, 2), (1, 2)):
        cache_spatial(cfg, str(checkpoint), tmp_path / "parts", part=part, num_workers=0)
    for path in out.glob("*/*.npy"):
        assert np.array_equal(np.load(path), np.load(tmp_path / "parts" / path.relative_to(out)))


def test_features_of_other_weights_are_not_mixed_in(clips, checkpoint, tmp_path):
    cfg = dense_config(clips)
    cache_spatial(cfg, str(checkpoint), tmp_path / "out", ("val",), num_workers=0)
    other = tmp_path / "other.pth"
    torch.save({"state_dict": build_model(cfg).state_dict()}, other)
    with pytest.raises(UserError, match="holds features of another model, checkpoint or data set"):
        cache_spatial(cfg, str(other), tmp_path / "out", ("val",), num_workers=0)


def test_temporal_training_moves_the_temporal_encoder_only(clips, checkpoint, tmp_path):
    """tools/train.py on the features; its checkpoint is tested with pixels by tools/test.py."""
    cache_spatial(dense_config(clips), str(checkpoint), tmp_path / "out", num_workers=0)
    cfg = temporal_config(tmp_path / "out")
    config = tmp_path / "temporal.py"
    cfg.dump(config)
    work_dir = tmp_path / "work"
    load_tool("train.py").main([str(config), "--work-dir", str(work_dir)])
    before = torch.load(checkpoint, weights_only=True)["state_dict"]
    after = safe_load(str(work_dir / "epoch_2.pth"))["state_dict"]
    assert before.keys() == after.keys()
    for name, value in before.items():
        frozen = name.startswith(("backbone.spatial", "backbone.patch_embed"))
        assert torch.equal(value, after[name]) == frozen, name
    dense = tmp_path / "dense.py"
    dense_config(clips).dump(dense)
    metrics = {}
    for name, path in (("features", config), ("pixels", dense)):
        folder = tmp_path / name
        load_tool("test.py").main(
            [str(path), str(work_dir / "epoch_2.pth"), "--work-dir", str(folder)]
        )
        metrics[name] = json.loads(next(folder.glob("*/*.json")).read_text())
    assert metrics["features"]["acc/top1"] == metrics["pixels"]["acc/top1"]


def test_views():
    with pytest.raises(ValueError, match="views='some' is not known; give one of random, all"):
        LoadSpatialFeatures("some")


def test_damaged_feature_file(tmp_path):
    path = tmp_path / "0.npy"
    path.write_bytes(b"\x93NUMPY")
    with pytest.raises(ValueError, match=r"0\.npy' cannot be read .*; delete it and run"):
        LoadSpatialFeatures().transform({"features_path": str(path)})
