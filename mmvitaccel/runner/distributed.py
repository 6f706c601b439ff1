"""Several processes: nccl, started by mmengine, or gloo without an accelerator.

On a CPU, the processes connect with the variables of torchrun or of SLURM's ``srun``.
"""

from __future__ import annotations

import argparse
import gc
import os
import re
from collections.abc import Iterable

import torch.distributed as dist
from mmengine.config import Config
from mmengine.device import get_device

from mmvitaccel.errors import UserError, building

_PORT = "29500"  # mmengine's under SLURM


def add_launcher_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--launcher``, and the rank argument of older launchers."""
    parser.add_argument(
        "--launcher",
        choices=["none", "pytorch", "slurm", "mpi"],
        default="none",
        help="who started the processes; pytorch means torchrun, slurm means srun",
    )
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0)


def start_processes(cfg: Config, launcher: str, local_rank: int) -> None:
    """Set ``cfg.launcher``, and join the other processes if mmengine cannot.

    On a CPU, mmengine would request a CUDA device. It does not change an existing process group, so
    gloo is started here, and the model wrapper is configured without devices.

    Raises:
        UserError: A launcher that needs GPUs on a machine without, or the launcher's variables
            are not set.
    """
    os.environ.setdefault("LOCAL_RANK", str(local_rank))
    cfg.launcher = launcher
    if launcher == "none" or get_device() != "cpu":
        return
    if launcher == "mpi":
        raise UserError(
            "--launcher mpi needs GPUs and there is none; start with torchrun and --launcher "
            "pytorch, or with srun and --launcher slurm."
        )
    if launcher == "slurm":
        _take_slurms_variables()
    _check_set(
        ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
        "--launcher pytorch",
        "start with tools/dist_train.sh, tools/dist_test.sh or torchrun",
    )
    if not dist.is_initialized():
        with building(f"--launcher {launcher}"):
            dist.init_process_group("gloo")
    wrapper = cfg.get("model_wrapper_cfg") or {
        "find_unused_parameters": cfg.get("find_unused_parameters", False),
        "broadcast_buffers": False,
    }
    cfg.model_wrapper_cfg = {"type": "MMDistributedDataParallel", **wrapper, "device_ids": None}


def leave_processes() -> None:
    """Close the process group, if there is one, so that the next run may start its own."""
    if dist.is_available() and dist.is_initialized():
        # gloo's threads end with the last reference to the group, which a runner's model
        # has in reference cycles; a thread that frees tensors while Python exits aborts the
        # process.
        gc.collect()
        dist.destroy_process_group()


def _take_slurms_variables() -> None:
    """Set torch's variables from those of ``srun``; the first host is the master.

    Raises:
        UserError: They are not set.
    """
    names = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")
    _check_set(names, "--launcher slurm", "start with srun")
    address = os.environ.get("MASTER_ADDR")
    if not address:
        _check_set(("SLURM_NODELIST",), "--launcher slurm", "start with srun, or set MASTER_ADDR")
        address = first_host(os.environ["SLURM_NODELIST"])
    rank, size, local = (os.environ[name] for name in names)
    port = os.environ.get("MASTER_PORT") or _PORT
    os.environ.update(RANK=rank, WORLD_SIZE=size, LOCAL_RANK=local)
    os.environ.update(MASTER_ADDR=address, MASTER_PORT=port)


def first_host(nodes: str) -> str:
    """The first host of a list in SLURM's format: ``node03`` of ``node[03-05,9],gpu1``."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)[0]
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", first)


def _check_set(names: Iterable[str], option: str, advice: str) -> None:
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        raise UserError(f"{option}: {', '.join(missing)} not set; {advice}.")
