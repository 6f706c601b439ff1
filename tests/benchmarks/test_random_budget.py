"""The benchmark of random budgets: both trainings, on a few generated frames."""

from __future__ import annotations

import json
import os
from collections import Counter

import pytest
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from mmvitaccel.analysis.tradeoff import draw_generated
from mmvitaccel.errors import UserError

# Taken once, they and the frames make 2 steps; taken twice, 3, with two pictures too many.
FRAMES, IMAGES, BATCH = 4, 5, 4


@pytest.fixture
def random_budget(load_benchmark, monkeypatch, tmp_path):
    module = load_benchmark("random_budget")
    load = module.load_config

    def small(*args, **kwargs):
        cfg = load(*args, **kwargs)
        cfg.generated.videos.update(num_train=1, num_val=1, num_frames=FRAMES)
        cfg.generated.images.update(num_train=IMAGES)
        cfg.train_dataloader.batch_size = BATCH
        for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
            loader.update(num_workers=0, persistent_workers=False)
        cfg.default_hooks.logger.interval = 1
        return cfg

    monkeypatch.setattr(module, "load_config", small)
    monkeypatch.setattr(Runner, "_log_env", lambda *args: None)  # half of the time
    monkeypatch.chdir(tmp_path)
    return module


def test_both_trainings_of_a_seed(random_budget, recorded, tmp_path, capsys):
    options = ["--seeds", "3", "--epochs", "1", "--k", "16", "--record"]
    random_budget.main(options)
    rows = recorded("random-budget").rows
    assert [(r["training"], r["seed"], r["epochs"], r["method"], r["k"]) for r in rows] == [
        (training, 3, 1, method, k)
        for training in ("dense", "random budgets")
        for method, k in (("dense", None), ("token-wise", 16))
    ]
    assert rows[0]["gmacs"] == rows[2]["gmacs"] > rows[1]["gmacs"] == rows[3]["gmacs"] > 0
    folder = tmp_path / "work_dirs/random_budget/1_epochs_seed_3"
    drawn = {
        training: [
            json.loads(line).get("eventful_k")
            for log in (folder / training / "train").rglob("scalars.json")
            for line in log.read_text().splitlines()
            if "loss" in line
        ]
        for training in ("dense", "random_budgets")
    }
    assert drawn["dense"] == [None] * 3
    assert len(drawn["random_budgets"]) == 3
    assert all(16 <= k <= 256 for k in drawn["random_budgets"])
    assert "of 1 seeds" in capsys.readouterr().out


def test_both_trainings_take_the_same_pictures(random_budget):
    """A clip of an image that has no neighbours counts it twice, and so do both trainings."""
    taken = []
    for cfg in random_budget.configs_of({"epochs": 1}).values():
        draw_generated(cfg, lambda *args: None)
        init_default_scope(cfg.default_scope)
        loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
        paths = (loader.dataset.get_data_info(index)["img_path"] for index in loader.sampler)
        taken.append((len(loader), Counter(map(os.path.realpath, paths))))
    assert taken[0] == taken[1]
    assert sorted(taken[0][1].values()) == [1] * FRAMES + [2] * IMAGES


def test_a_training_of_no_epoch_is_refused(random_budget):
    with pytest.raises(UserError, match="--epochs 0: give 1 or more"):
        random_budget.main.__wrapped__(["--epochs", "0"])
