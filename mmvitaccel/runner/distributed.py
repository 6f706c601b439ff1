"""Several processes: nccl as mmengine starts it, gloo where there is only a CPU."""

from __future__ import annotations

import argparse
import gc
import os

import torch.distributed as dist
from mmengine.config import Config
from mmengine.device import get_device

from mmvitaccel.errors import UserError, building


def add_launcher_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--launcher`` and the rank that older launchers pass on the command line."""
    parser.add_argument(
        "--launcher",
        choices=["none", "pytorch", "slurm", "mpi"],
        default="none",
        help="who started the processes; pytorch means torchrun",
    )
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0)


def start_processes(cfg: Config, launcher: str, local_rank: int) -> None:
    """Set ``cfg.launcher``, and join the other processes where mmengine cannot.

    On a CPU mmengine would ask CUDA for a device. A process group that exists already it leaves
    alone, so gloo is started here, and the model wrapper is told that there are no devices.

    Raises:
        UserError: A launcher that needs GPUs on a machine without, or torchrun's variables are
            not set.
    """
    os.environ.setdefault("LOCAL_RANK", str(local_rank))
    cfg.launcher = launcher
    if launcher == "none" or get_device() != "cpu":
        return
    if launcher != "pytorch":
        raise UserError(
            f"--launcher {launcher} needs GPUs and there is none; start with torchrun and "
            "--launcher pytorch."
        )
    missing = [n for n in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if not _is_set(n)]
    if missing:
        raise UserError(
            f"--launcher pytorch: {', '.join(missing)} not set; start with tools/dist_train.sh, "
            "tools/dist_test.sh or torchrun."
        )
    if not dist.is_initialized():
        with building("--launcher pytorch"):
            dist.init_process_group("gloo")
    wrapper = cfg.get("model_wrapper_cfg") or {
        "find_unused_parameters": cfg.get("find_unused_parameters", False),
        "broadcast_buffers": False,
    }
    cfg.model_wrapper_cfg = {"type": "MMDistributedDataParallel", **wrapper, "device_ids": None}


def leave_processes() -> None:
    """Close the process group, if there is one, so that the next run may start its own."""
    if dist.is_available() and dist.is_initialized():
        # reason: gloo's threads end with the group's last reference, which a runner's model has,
        # in cycles; a thread that still frees tensors while Python ends aborts the process.
        gc.collect()
        dist.destroy_process_group()


def _is_set(name: str) -> bool:
    return bool(os.environ.get(name))
