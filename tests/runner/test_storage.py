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
from mmvitaccel.runner.storage import check_room, last_checkpoint, whole_checkpoints


@pytest.mark.parametrize(
    ("optimizer", "megabytes"),
    [
        (dict(type="AdamW"), 12),
        (dict(type="SGD", momentum=0.9), 8),
        (dict(type="SGD"), 4),
        (dict(type="Unknown"), 4),
    ],
)
def test_room_is_asked_for_weights_and_what_the_optimizer_keeps(
    tmp_path, monkeypatch, optimizer, megabytes
):
    model = nn.Linear(1024, 1024, bias=False)
    cfg = Config(dict(work_dir=str(tmp_path), optim_wrapper=dict(optimizer=optimizer)))
    free = megabytes * 2**20
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    check_room(cfg, model)
    free -= 1
    with pytest.raises(UserError, match=rf"takes {megabytes}\.0 MB and the disk has"):
        check_room(cfg, model)


def test_checkpoints_elsewhere_are_looked_at_there(tmp_path):
    (tmp_path / "file").write_text("")
    hooks = dict(checkpoint=dict(type="CheckpointHook", out_dir=str(tmp_path / "file")))
    cfg = Config(dict(work_dir=str(tmp_path / "work"), default_hooks=hooks))
    with pytest.raises(UserError, match="file is a file"):
        check_room(cfg, nn.Linear(1, 1))
    cfg.default_hooks.checkpoint.out_dir = "s3://bucket"
    check_room(cfg, nn.Linear(1, 1))


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
