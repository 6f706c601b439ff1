from __future__ import annotations

import os
import shutil
from collections import deque
from types import SimpleNamespace

import pytest
from mmengine.config import Config
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook
from torch import nn

from mmvitaccel.errors import UserError
from mmvitaccel.runner.checkpoint_size import checkpoint_bytes
from mmvitaccel.runner.config import load_config
from mmvitaccel.runner.session import build_model, run
from mmvitaccel.runner.storage import check_room, last_checkpoint, whole_checkpoints


def optimizer(hook=None, **options) -> dict:
    hooks = {} if hook is None else dict(default_hooks=dict(checkpoint=hook))
    return dict(optim_wrapper=dict(optimizer=options), **hooks)


@pytest.mark.parametrize(
    ("setting", "megabytes"),
    [
        (optimizer(type="AdamW", lr=0.1), 12),
        (optimizer(type="AdamW", lr=0.1, fused=True), 12),
        (optimizer(type="AdamW", lr=0.1, amsgrad=True), 16),
        (optimizer(type="SGD", lr=0.1, momentum=0.9), 8),
        (optimizer(type="SGD", lr=0.1), 4),
        (optimizer(type="RMSprop", lr=0.1, momentum=0.9), 12),
        (optimizer(type="Adagrad", lr=0.1), 8),
        (optimizer(type="Unknown"), 4),
        (dict(optim_wrapper=dict(a=dict(optimizer=dict(type="Adam", lr=0.1)))), 12),
        (dict(custom_hooks=[dict(type="EMAHook")]), 8),
        (dict(default_hooks=dict(ema=dict(type="mmpretrain.EMAHook"))), 8),
        (optimizer(type="AdamW", lr=0.1, hook=dict(save_optimizer=False)), 4),
        (optimizer(type="AdamW", lr=0.1, hook=dict(save_best="auto")), 16),
        (optimizer(type="AdamW", lr=0.1, hook=dict(save_best=["a", "b"])), 20),
    ],
)
def test_room_is_asked_for_all_that_is_written(tmp_path, monkeypatch, setting, megabytes):
    model = nn.Sequential(nn.Linear(1024, 1024, bias=False)).train()
    cfg = Config(dict(work_dir=str(tmp_path), **setting))
    free = megabytes * 2**20 + 64  # counts of steps
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    check_room(cfg, model)
    free -= 65
    with pytest.raises(UserError, match=rf"takes {megabytes}\.0 MB and the disk has"):
        check_room(cfg, model)
    assert model[0].weight.grad is None


def test_frozen_weights_have_no_state():
    model = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
    model[0].requires_grad_(False)
    cfg = Config(optimizer(type="SGD", lr=0.1, momentum=0.9))
    assert checkpoint_bytes(cfg, model) == 4 * (64 + 64 + 64)


def test_it_is_what_mmengine_writes(tmp_path, detector_config):
    cfg = load_config(str(detector_config), {"work_dir": str(tmp_path / "w")})
    cfg.custom_hooks = [dict(type="EMAHook")]
    cfg.optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=1e-3))
    cfg.train_cfg.max_epochs = 1
    size = checkpoint_bytes(cfg, build_model(cfg))
    run(cfg, "train")
    written = (tmp_path / "w" / "epoch_1.pth").stat().st_size
    assert size < written < 1.5 * size  # names, the config's text and alignment beside


def test_checkpoints_elsewhere_are_looked_at_there(tmp_path):
    (tmp_path / "file").write_text("")
    hooks = dict(checkpoint=dict(type="CheckpointHook", out_dir=str(tmp_path / "file")))
    cfg = Config(dict(work_dir=str(tmp_path / "work"), default_hooks=hooks))
    with pytest.raises(UserError, match="file is a file"):
        check_room(cfg, nn.Linear(1, 1))
    cfg.default_hooks.checkpoint.out_dir = "s3://bucket"
    check_room(cfg, nn.Linear(1, 1))


def test_the_work_directory_of_checkpoints_elsewhere_needs_no_room(tmp_path, monkeypatch):
    hooks = dict(checkpoint=dict(type="CheckpointHook", out_dir=str(tmp_path / "out")))
    cfg = Config(dict(work_dir=str(tmp_path / "work"), default_hooks=hooks))
    (tmp_path / "work").mkdir()
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: SimpleNamespace(free=0 if path.name == "work" else 2**30)
    )
    check_room(cfg, nn.Linear(64, 64))


def test_the_last_checkpoint_is_one_that_is_there(tmp_path):
    note = tmp_path / "last_checkpoint"
    assert last_checkpoint(str(tmp_path)) is None
    note.write_text("")
    assert last_checkpoint(str(tmp_path)) is None
    for time, name in enumerate(["epoch_9.pth", "epoch_10.pth", "epoch_11.pth.part"]):
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (time, time))
    assert last_checkpoint(str(tmp_path)) == str(tmp_path / "epoch_10.pth")
    note.write_text(str(tmp_path / "epoch_8.pth"))
    assert last_checkpoint(str(tmp_path)) == str(tmp_path / "epoch_10.pth")
    note.write_text(f"{tmp_path / 'epoch_9.pth'}\n")
    assert last_checkpoint(str(tmp_path)) == str(tmp_path / "epoch_9.pth")
    note.write_text("s3://bucket/epoch_1.pth")
    assert last_checkpoint(str(tmp_path)) == "s3://bucket/epoch_1.pth"


def test_the_old_checkpoint_goes_when_the_new_one_is_there(tmp_path):
    hook = CheckpointHook(max_keep_ckpts=1)
    hook.file_backend, hook.out_dir = LocalBackend(), str(tmp_path)
    hook.keep_ckpt_ids = deque()
    seen, failing = [], False

    def save_checkpoint(out_dir, filename, *args, **kwargs):
        if failing:
            raise OSError("killed")
        seen.append(sorted(p.name for p in tmp_path.glob("*.pth")))
        hook.file_backend.put(b"weights", str(tmp_path / filename))

    hub = SimpleNamespace(update_info=lambda *args: None)
    runner = SimpleNamespace(
        hooks=[hook], message_hub=hub, work_dir=str(tmp_path), save_checkpoint=save_checkpoint
    )
    put = LocalBackend.put
    with whole_checkpoints(runner):
        for epoch in (1, 2):
            hook._save_checkpoint_with_step(runner, epoch, meta={})
        failing = True
        with pytest.raises(OSError, match="killed"):
            hook._save_checkpoint_with_step(runner, 3, meta={})
    assert seen == [[], ["epoch_1.pth"]]
    assert [p.name for p in tmp_path.glob("*.pth")] == ["epoch_2.pth"]
    assert LocalBackend.put is put


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("coco/bbox_mAp", r"save_best is 'coco/bbox_mAp', but the evaluators give 'coco/bbox_mAP'"
                          r".*--resume; did you mean 'coco/bbox_mAP'\?"),
        ("coco/bbox_mAP", None),
        ("auto", None),
    ],
)  # fmt: skip
def test_the_best_by_a_figure_that_nobody_gives(key, sentence):
    hook, saved = CheckpointHook(save_best=key, rule="greater"), []
    hook._save_best_checkpoint = lambda runner, metrics: saved.append(metrics)
    runner = SimpleNamespace(hooks=[hook])
    with whole_checkpoints(runner):
        hook._save_best_checkpoint(runner, {})
        if sentence is None:
            hook._save_best_checkpoint(runner, {"coco/bbox_mAP": 0.5})
            assert saved == [{}, {"coco/bbox_mAP": 0.5}]
            return
        with pytest.raises(UserError, match=sentence):
            hook._save_best_checkpoint(runner, {"coco/bbox_mAP": 0.5})
