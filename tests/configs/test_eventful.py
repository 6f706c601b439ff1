"""The configs of configs/eventful say what their names say, and the small ones run."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path

import pytest
import yaml
from mmengine.config import Config
from mmengine.runner import Runner

import mmvitaccel  # noqa: F401  (closes the stack's gaps before mmdet loads)
from mmvitaccel.analysis.tradeoff import draw_generated

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "configs" / "eventful"
CONFIGS = sorted(
    path
    for path in FOLDER.rglob("faster-rcnn_*.py")
    if "_base_" not in path.relative_to(FOLDER).parts
)
PATTERN = re.compile(
    r"faster-rcnn_vitdet-(?:b|tiny)_vid-(?P<size>\d+)_(?P<kind>dense|top|threshold-1)(?P<k>\d+)?"
    r"(?:[_-](?P<variant>tokenwise|delta|stgt|delta-pool|pool|neck|all|random-budget))?"
)


pytestmark = pytest.mark.usefixtures("metafiles_read_once")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_is_what_its_name_says(path):
    name = PATTERN.fullmatch(path.stem).groupdict()
    cfg = Config.fromfile(path)
    size, backbone = int(name["size"]), cfg.model.backbone
    assert cfg.model.data_preprocessor.pad_size_divisor == size
    (resize,) = [s for s in cfg.test_dataloader.dataset.pipeline if s["type"] == "Resize"]
    assert resize.scale[0] == size
    if "tiny" not in path.stem:
        assert resize.scale == (size, 640 * size // 1024)
    assert {"video_id", "frame_id"} <= set(cfg.test_dataloader.dataset.pipeline[-1].meta_keys)
    assert [metric.type for metric in cfg.test_evaluator] == [
        "mmvitaccel.VIDMetric",
        "mmvitaccel.MacsMetric",
    ]
    if path.stem.endswith("_dense"):
        assert backbone.type == "mmvitaccel.ViTDet"
        return
    if name["variant"] == "random-budget":
        assert backbone.type == "mmvitaccel.ViTDet"
        assert cfg.custom_hooks[-1].type == "mmvitaccel.RandomBudgetHook"
        assert (
            cfg.custom_hooks[-1].frames
            == cfg.train_dataloader.sampler.frames
            == cfg.model.data_preprocessor.batch_augments[0].frames
        )
        # flips are those of clips
        for dataset in cfg.train_dataloader.dataset.datasets:
            assert "RandomFlip" not in [step.type for step in dataset.pipeline]
        return
    if name["variant"] == "all":
        assert backbone.type == "mmvitaccel.ViTDet"
        cost, hook = cfg.custom_hooks
        assert (cost.type, hook.type) == ("mmvitaccel.CostHook", "mmvitaccel.EventfulHook")
        assert hook.parts == "all" and hook.attention == "exact"
        assert hook.policy == dict(type="TopK", k=int(name["k"]))
        return
    assert backbone.type == "mmvitaccel.Eventful"
    assert backbone.backbone.type == "mmvitaccel.ViTDet"
    policy = {"dense": "Always", "top": "TopK", "threshold-1": "Threshold"}[name["kind"]]
    assert backbone.policy.type == policy
    assert backbone.policy.get("k") == (int(name["k"]) if name["k"] else None)
    variant = (name["variant"] or "exact").replace("neck", "exact")
    attention = (
        variant.split("-")[0] if variant in ("exact", "delta", "delta-pool") else "tokenwise"
    )
    assert backbone.attention == attention
    if name["variant"] == "neck":
        assert cfg.model.neck.type == "mmvitaccel.EventfulNeck"
        assert cfg.model.neck.policy == backbone.policy
        assert cfg.model.neck.neck.type == "mmvitaccel.SimpleFPN"
    else:
        assert cfg.model.neck.type == "mmvitaccel.SimpleFPN"
    assert backbone.get("kv_pool_size", 1) == (2 if variant.endswith("pool") else 1)
    assert backbone.get("reference") == ("last_frame" if variant == "stgt" else None)


def test_every_config_is_in_the_metafile():
    models = yaml.safe_load((FOLDER / "metafile.yml").read_text())["Models"]
    assert sorted(ROOT / model["Config"] for model in models) == CONFIGS
    assert all(Path(model["Config"]).stem == model["Name"] for model in models)


def test_rows_of_the_papers_tables():
    """Every k of the paper at either size, in every way that the paper has it."""
    names = {path.stem for path in CONFIGS}
    for size, budgets, variants in (
        (1024, (2048, 1024, 768, 512, 256), ("", "_delta", "_tokenwise", "_stgt", "_delta-pool")),
        (672, (512, 256, 128), ("", "_delta", "_tokenwise")),
    ):
        for k in budgets:
            for variant in variants:
                assert f"faster-rcnn_vitdet-b_vid-{size}_top{k}{variant}" in names


def test_recipe_of_the_paper():
    cfg = Config.fromfile(FOLDER / "faster-rcnn_vitdet-b_vid-1024_dense.py")
    backbone = cfg.model.backbone
    assert (backbone.patch_size, backbone.embed_dim, backbone.depth, backbone.num_heads) == (
        16, 768, 12, 12,
    )  # fmt: skip
    assert tuple(backbone.window_block_indexes) == (0, 1, 3, 4, 6, 7, 9, 10)
    head = cfg.model.roi_head.bbox_head
    assert (head.num_classes, head.loss_bbox.type, head.reg_decoded_bbox) == (30, "GIoULoss", True)
    assert head.norm_cfg.type == "mmvitaccel.LN2d"
    assert cfg.model.test_cfg.rcnn.score_thr == 0.05
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ("AdamW", 1e-4, 0.1)
    assert (cfg.train_dataloader.batch_size, cfg.train_cfg.max_epochs) == (8, 5)
    sets = [dataset.ann_file for dataset in cfg.train_dataloader.dataset.datasets]
    assert sets == [
        "annotations/imagenet_vid_train.json",
        "annotations/imagenet_det_30plus1cls.json",
    ]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A few generated frames, and weights of one iteration; runs the small configs on them."""
    folder = tmp_path_factory.mktemp("small")

    def load(name: str) -> Config:
        cfg = Config.fromfile(FOLDER / "tiny" / f"faster-rcnn_vitdet-tiny_vid-128_{name}.py")
        cfg.generated.videos.update(num_train=1, num_val=2, num_frames=4)
        cfg.generated.images.update(num_train=1)
        cfg.data_root = str(folder) + "/"
        for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
            loader.update(num_workers=0, persistent_workers=False)
            datasets = loader.dataset.get("datasets") or [loader.dataset]
            for dataset in datasets:
                dataset.data_root = cfg.data_root
        annotations = cfg.data_root + "videos/annotations/vid_val.json"
        cfg.val_evaluator.ann_file = cfg.test_evaluator[0].ann_file = annotations
        cfg.experiment_name = name
        cfg.work_dir = str(folder / name)
        return cfg

    # Half of the time of a run on so few frames goes into asking compilers for versions
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Runner, "_log_env", lambda *args: None)
        cfg = load("dense")
        draw_generated(cfg, lambda *step: None)
        cfg.train_dataloader.batch_size = 5
        cfg.train_cfg.update(max_epochs=1, val_interval=2)
        Runner.from_cfg(cfg).train()
        yield _tester(folder, load)


def _tester(folder: Path, load):
    @functools.cache
    def test(
        name: str, k: int | None = None, attention: str | None = None, hook: str | None = None
    ) -> tuple[dict, dict]:
        """The figures of a test, returned and in the json log."""
        cfg = load(name)
        if hook:
            cfg.default_hooks.eventful = json.loads(hook)
        if k:
            cfg.model.backbone.update(policy=dict(type="TopK", k=k), attention=attention)
        cfg.load_from = str(folder / "dense" / "epoch_1.pth")
        # After one iteration scores are low, and nothing else would be found
        cfg.model.test_cfg.rcnn.score_thr = 0.0
        cfg.experiment_name += str(len(list(folder.iterdir())))
        cfg.work_dir = str(folder / cfg.experiment_name)
        figures = Runner.from_cfg(cfg).test()
        (log,) = Path(cfg.work_dir).glob("*/*.json")
        return figures, json.loads(log.read_text())

    return test


def test_small_configs_test_with_mean_cost_and_tokens(small):
    dense, _ = small("dense")
    assert dense["cost/backbone_ratio"] == 1
    for name in ("top64", "top64_tokenwise", "top64_delta", "top64_stgt", "top64_delta-pool"):
        figures, logged = small(name)
        assert figures["cost/backbone_dense_gmacs"] == pytest.approx(
            dense["cost/backbone_gmacs"], rel=1e-9
        )
        assert figures["cost/backbone_ratio"] == pytest.approx(
            figures["cost/backbone_dense_gmacs"] / figures["cost/backbone_gmacs"]
        )
        assert figures["cost/backbone_ratio"] > 1.5
        # 2 of 8 frames are first ones
        assert figures["cost/backbone_gmacs"] == pytest.approx(
            0.25 * figures["cost/backbone_first_gmacs"]
            + 0.75 * figures["cost/backbone_later_gmacs"]
        )
        gates = {f"blocks.{b}.{gate}" for b in range(6) for gate in ("qkv", "proj", "mlp")}
        assert figures["cost/tokens"] == dict.fromkeys(gates, 64)
        for key in ("vid/mAP50", "cost/gmacs", "cost/later_ms", "cost/tokens"):
            assert logged[key] == pytest.approx(figures[key]), key


def test_an_eventful_pyramid_costs_less_and_reports_its_cells(small):
    without, figures = small("top64")[0], small("top64_neck")[0]
    assert figures["cost/backbone_gmacs"] == pytest.approx(without["cost/backbone_gmacs"])
    assert figures["cost/first_gmacs"] == pytest.approx(without["cost/first_gmacs"])
    assert figures["cost/later_gmacs"] < without["cost/later_gmacs"]
    assert figures["cost/dense_gmacs"] == pytest.approx(without["cost/dense_gmacs"])
    assert figures["cost/tokens"] == {**without["cost/tokens"], "neck.cells": 64}


def test_all_tokens_score_as_the_dense_model(small):
    dense, _ = small("dense")
    for attention in ("exact", "tokenwise", "delta"):
        figures, _ = small("top64", k=256, attention=attention)
        assert figures["vid/mAP50"] == pytest.approx(dense["vid/mAP50"], abs=1e-6)


def test_threshold_reports_what_it_let_through(small):
    figures, _ = small("threshold-1")
    tokens = figures["cost/tokens"]
    assert len(tokens) == 18 and all(0 <= number <= 256 for number in tokens.values())
    assert len(set(tokens.values())) > 1


def test_the_hook_on_a_dense_config_reports_the_same(small):
    wrapped, _ = small("top64_delta")
    hook = dict(type="mmvitaccel.EventfulHook", policy=dict(type="TopK", k=64), attention="delta")
    hooked, _ = small("dense", hook=json.dumps(hook))
    same = [name for name in wrapped if not name.endswith("ms")]
    assert {name: hooked[name] for name in same} == {name: wrapped[name] for name in same}
