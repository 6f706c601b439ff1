"""Two processes, and what they measure together."""

from __future__ import annotations

import json
import os
import pickle
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from mmvitaccel.runner.config import load_config
from mmvitaccel.runner.session import build_model

ROOT = Path(__file__).parents[2]

# Says which ranks there were and which images each of them scored.
HOOK = """
from mmengine.dist import all_gather_object, get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
import json, torch
from pathlib import Path


@HOOKS.register_module()
class WitnessHook(Hook):
    seen = []

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.seen += [sample.img_id for sample in outputs]

    def after_train(self, runner):
        total = sum(p.detach().double().sum() for p in runner.model.parameters())
        self.write(runner, "train", total.item())

    def after_test(self, runner):
        self.write(runner, "test", self.seen)

    def write(self, runner, job, value):
        everyone = all_gather_object(value)
        if get_rank() == 0:
            Path(runner.work_dir, job + ".json").write_text(json.dumps(everyone))
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def launch(
    script: str, *arguments: object, cwd: Path, **variables: str
) -> subprocess.CompletedProcess:
    environment = dict(
        os.environ,
        PORT=str(free_port()),
        PYTHON=sys.executable,
        PYTHONPATH=str(cwd),
        OMP_NUM_THREADS="1",
    )
    environment.update(variables)
    return subprocess.run(
        ["bash", ROOT / "tools" / script, *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture
def weights(detector_config, tmp_path):
    """Random weights of the detector."""
    path = tmp_path / "weights.pth"
    torch.save(build_model(load_config(str(detector_config), {})).state_dict(), path)
    return path


@pytest.fixture
def witnessed(detector_config, weights, tmp_path):
    """The detector's config, with a hook that only the processes of a test can import."""
    (tmp_path / "witness.py").write_text(HOOK)
    with detector_config.open("a") as config:
        config.write("custom_imports = dict(imports=['witness'])\n")
        config.write("custom_hooks = [dict(type='WitnessHook')]\n")
    return detector_config


@pytest.mark.skipif(
    torch.cuda.is_available() and torch.cuda.device_count() < 2, reason="needs two GPUs or none"
)
def test_two_processes_train_and_test_together(run_tool, witnessed, tmp_path, monkeypatch):
    with witnessed.open("a") as config:
        config.write("test_evaluator = dict(val_evaluator, outfile_prefix='scored')\n")

    trained = launch("dist_train.sh", witnessed, 2, "--work-dir", "both", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    first, second = json.loads((tmp_path / "both" / "train.json").read_text())
    assert first == second
    # five images in batches of two, shared by two: one batch and a half each
    log = next((tmp_path / "both").glob("*/vis_data/scalars.json")).read_text().splitlines()
    assert len([line for line in log if '"loss"' in line]) == 2

    trained_weights = tmp_path / "both" / "epoch_1.pth"
    options = ["--work-dir", "both", "--out", "both.pkl"]
    tested = launch("dist_test.sh", witnessed, trained_weights, 2, *options, cwd=tmp_path)
    assert tested.returncode == 0, tested.stderr
    assert json.loads((tmp_path / "both" / "test.json").read_text()) == [[0, 2, 4], [1, 3, 0]]

    monkeypatch.syspath_prepend(tmp_path)
    run_tool("test", witnessed, trained_weights, "--out", "one.pkl")
    of_two, of_one = (pickle.loads((tmp_path / f"{n}.pkl").read_bytes()) for n in ("both", "one"))
    assert [p["img_id"] for p in of_two] == [p["img_id"] for p in of_one] == [0, 1, 2, 3, 4]
    for ours, theirs in zip(of_two, of_one):
        for key in ("bboxes", "scores", "labels"):
            assert torch.equal(ours["pred_instances"][key], theirs["pred_instances"][key])


@pytest.mark.skipif(torch.cuda.is_available(), reason="two processes share the CPU")
def test_two_processes_with_slurms_variables_test_together(witnessed, weights, tmp_path):
    port = str(free_port())
    arguments = (witnessed, weights, "--work-dir", "both", "--launcher", "slurm")
    processes = []
    for rank in range(2):
        environment = dict(
            os.environ,
            SLURM_PROCID=str(rank),
            SLURM_LOCALID=str(rank),
            SLURM_NTASKS="2",
            SLURM_NODELIST="localhost",
            MASTER_PORT=port,
            PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]),
            OMP_NUM_THREADS="1",
        )
        environment = {k: v for k, v in environment.items() if k not in ("RANK", "MASTER_ADDR")}
        command = [sys.executable, ROOT / "tools" / "test.py", *arguments]
        processes.append(
            subprocess.Popen(
                [*map(str, command)],
                cwd=tmp_path,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    said = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert json.loads((tmp_path / "both" / "test.json").read_text()) == [[0, 2, 4], [1, 3, 0]]


@pytest.mark.skipif(torch.cuda.is_available(), reason="two processes share the CPU")
def test_two_machines_with_a_process_each_test_together(witnessed, weights, tmp_path):
    """The variables of the page on training; both machines are this one."""
    port = str(free_port())

    def start(rank: int) -> subprocess.CompletedProcess:
        place = dict(NNODES="2", NODE_RANK=str(rank), MASTER_ADDR="127.0.0.1", PORT=port)
        options = (witnessed, weights, 1, "--work-dir", "both")
        return launch("dist_test.sh", *options, cwd=tmp_path, **place)

    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(start, range(2)))
    assert [each.returncode for each in done] == [0, 0], [each.stderr for each in done]
    assert json.loads((tmp_path / "both" / "test.json").read_text()) == [[0, 2, 4], [1, 3, 0]]


def test_a_mistake_is_said_by_each_process(detector_config, tmp_path):
    done = launch("dist_train.sh", detector_config, 2, "--cfg-options", "modle=1", cwd=tmp_path)
    assert done.returncode == 2
    assert "error: --cfg-options modle: the config has no setting 'modle'" in done.stderr
    assert "was given something wrong, as it says above." in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "work_dirs").exists()


BREAKS = """
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
import os, signal


@HOOKS.register_module()
class BreakingHook(Hook):
    def __init__(self, how):
        self.how = how

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if get_rank() == 1:
            if self.how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise {"stumbles": ZeroDivisionError}[self.how]()
"""


@pytest.mark.skipif(torch.cuda.is_available(), reason="two processes share the CPU")
@pytest.mark.parametrize(
    ("how", "status", "sentence"),
    [
        ("killed", 2, "error: process 1 was ended by SIGKILL; the system does so when memory"),
        ("stumbles", 1, "ZeroDivisionError"),
    ],
)
def test_one_process_that_fails_ends_all(detector_config, tmp_path, how, status, sentence):
    (tmp_path / "breaking.py").write_text(BREAKS)
    with detector_config.open("a") as config:
        config.write("custom_imports = dict(imports=['breaking'])\n")
        config.write(f"custom_hooks = [dict(type='BreakingHook', how='{how}')]\n")
    done = launch("dist_train.sh", detector_config, 2, "--work-dir", "run", cwd=tmp_path)
    assert done.returncode == status
    assert sentence in done.stderr
    assert ("Traceback" in done.stderr) == (how == "stumbles")


@pytest.mark.skipif(torch.cuda.is_available(), reason="two processes share the CPU")
def test_a_broken_picture_of_one_process_is_named(detector_config, tmp_path):
    (tmp_path / "boxes" / "images" / "3.png").write_bytes(b"")
    done = launch("dist_train.sh", detector_config, 2, "--work-dir", "run", cwd=tmp_path)
    assert done.returncode == 2
    assert "images/3.png: the file is empty (0 bytes); replace or remove it" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("script", ["dist_train.sh", "dist_test.sh"])
def test_usage(script, tmp_path):
    done = launch(script, "config.py", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: ")
