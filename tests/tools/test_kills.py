"""Trainings and conversions that are killed (SIGKILL) at the worst moments, and what follows."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

ROOT = Path(__file__).parents[2]
# A resumed run computes the same; its sums may come in another order.
LOSS_TOLERANCE = 1e-5

# Notes what each iteration saw, and kills the process where the environment says.
WITNESS = """
import json, os, signal
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

KILL = os.environ.get("KILL_AT", "")


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


if KILL.startswith("write"):
    count = [0]

    def fsync(number, fsync=os.fsync):
        count[0] += 1
        if count[0] == int(KILL.split()[1]):
            kill()
        fsync(number)

    os.fsync = fsync


@HOOKS.register_module()
class Witness(Hook):
    priority = "LOWEST"

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        note = dict(iter=runner.iter, ids=[s.img_id for s in data_batch["data_samples"]],
                    lr=runner.optim_wrapper.get_lr()["lr"], loss=outputs["loss"].item())
        with open(os.environ["WITNESS"], "a") as file:
            file.write(json.dumps(note) + "\\n")
        if KILL == f"iter {runner.iter}":
            kill()
"""


@pytest.fixture
def config(detector_config: Path) -> Path:
    (detector_config.parent / "witness.py").write_text(WITNESS)
    with detector_config.open("a") as file:
        file.write(
            "\ncustom_imports = dict(imports=['mmvitaccel', 'witness'])\n"
            "custom_hooks = [dict(type='mmengine.Witness')]\n"
            "train_cfg['max_epochs'] = 3\n"
            "train_cfg['val_interval'] = 100\n"
            "default_hooks['checkpoint']['max_keep_ckpts'] = 1\n"
            "param_scheduler = [dict(type='CosineAnnealingLR', T_max=3, by_epoch=True,\n"
            "                        convert_to_iter_based=True)]\n"
        )
    return detector_config


def start(config: Path, work: Path, witness: Path, *args: str, kill_at: str = "") -> int:
    """Train in a process of its own; its exit status, negative for a signal."""
    path = os.pathsep.join([str(config.parent), str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": path, "WITNESS": str(witness), "KILL_AT": kill_at}
    command = [sys.executable, str(ROOT / "tools/train.py"), str(config), "--work-dir", str(work)]
    done = subprocess.run([*command, *args], env=env, capture_output=True, text=True, timeout=600)
    if done.returncode > 0:
        raise AssertionError(done.stderr[-3000:])
    return done.returncode


def notes(path: Path) -> dict[int, dict]:
    """The last thing that was noted of each iteration."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return {note["iter"]: note for note in map(json.loads, lines)}


def test_a_killed_training_goes_on_as_if_it_had_not_been(config, tmp_path):
    whole = tmp_path / "whole.jsonl"
    assert start(config, tmp_path / "whole", whole) == 0
    expected = notes(whole)
    assert len(expected) == 9
    # Within the second epoch; while the second checkpoint is written; while the first one is.
    for kill_at, kept in (("iter 4", [1]), ("write 2", [1]), ("write 1", [])):
        work, witness = tmp_path / kill_at.replace(" ", "_"), tmp_path / f"{kill_at}.jsonl"
        assert start(config, work, witness, kill_at=kill_at) == -signal.SIGKILL
        left = sorted(p.name for p in work.glob("*.pth"))
        assert left == [f"epoch_{n}.pth" for n in kept]
        for name in left:
            assert "optimizer" in torch.load(work / name, weights_only=False)
        assert start(config, work, witness, "--resume") == 0
        assert sorted(p.name for p in work.glob("*.pth*")) == ["epoch_3.pth"]
        found = notes(witness)
        assert found.keys() == expected.keys()
        for number, note in expected.items():
            assert found[number]["ids"] == note["ids"]
            assert found[number]["lr"] == pytest.approx(note["lr"], rel=1e-12)
            assert found[number]["loss"] == pytest.approx(note["loss"], rel=LOSS_TOLERANCE)


def test_a_disk_too_small_for_one_checkpoint_ends_a_training_before_it_starts(
    detector_config, tmp_path, run_tool, capsys, monkeypatch
):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**17))
    with pytest.raises(SystemExit) as ended:
        run_tool("train", detector_config, "--work-dir", tmp_path / "work")
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert "a checkpoint of this training takes 0." in message
    assert "the disk has 0.1 MB free; make room" in message
    assert not list(tmp_path.glob("work/*.pth"))
