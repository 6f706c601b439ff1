"""What is refused; that processes work together is seen in tests/tools/test_dist.py."""

from __future__ import annotations

import pytest
from mmengine.config import Config

from mmvitaccel.errors import UserError
from mmvitaccel.runner import distributed
from mmvitaccel.runner.distributed import start_processes

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK")


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(distributed, "get_device", lambda: "cpu")


def test_one_process_changes_nothing():
    cfg = Config(dict(model=dict(type="M")))
    start_processes(cfg, "none", 0)
    assert cfg.to_dict() == dict(model=dict(type="M"), launcher="none")


def test_launchers_that_cannot_be_served_on_a_cpu():
    with pytest.raises(UserError, match="--launcher slurm needs GPUs and there is none"):
        start_processes(Config({}), "slurm", 0)
    with pytest.raises(UserError, match="RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT not set"):
        start_processes(Config({}), "pytorch", 0)


def test_gpus_are_left_to_mmengine(monkeypatch):
    monkeypatch.setattr(distributed, "get_device", lambda: "cuda")
    cfg = Config({})
    start_processes(cfg, "pytorch", 1)
    assert cfg.to_dict() == dict(launcher="pytorch")
