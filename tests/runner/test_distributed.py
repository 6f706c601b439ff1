"""What is refused; that processes work together is seen in tests/tools/test_dist.py."""

from __future__ import annotations

import pytest
from mmengine.config import Config

from mmvitaccel.errors import UserError
from mmvitaccel.runner import distributed
from mmvitaccel.runner.distributed import first_host, start_processes

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK")
VARIABLES += ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NODELIST")


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
    with pytest.raises(UserError, match="--launcher mpi needs GPUs and there is none"):
        start_processes(Config({}), "mpi", 0)
    with pytest.raises(UserError, match="RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT not set"):
        start_processes(Config({}), "pytorch", 0)


def test_slurms_variables_are_asked_for(monkeypatch):
    said = "--launcher slurm: SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID not set; start with srun."
    with pytest.raises(UserError, match=said):
        start_processes(Config({}), "slurm", 0)
    for name in VARIABLES[5:8]:
        monkeypatch.setenv(name, "0")
    with pytest.raises(UserError, match="SLURM_NODELIST not set; start with srun, or set MASTER_"):
        start_processes(Config({}), "slurm", 0)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node7", "node7"),
        ("a,b", "a"),
        ("node[03-05,9],gpu1", "node03"),
        ("rack[1,3]n[10-12]-ib", "rack1n10-ib"),
        ("cpu-3[2,4-6].site.org", "cpu-32.site.org"),
    ],
)
def test_first_host_of_a_list(nodes, first):
    assert first_host(nodes) == first


def test_gpus_are_left_to_mmengine(monkeypatch):
    monkeypatch.setattr(distributed, "get_device", lambda: "cuda")
    cfg = Config({})
    start_processes(cfg, "pytorch", 1)
    assert cfg.to_dict() == dict(launcher="pytorch")
