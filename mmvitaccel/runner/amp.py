"""Mixed precision on devices that mmengine's own wrapper does not support."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from torch import nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from mmvitaccel.arguments import config, whole_number, with_methods
from mmvitaccel.errors import UserError, building
from mmvitaccel.registry import OPTIM_WRAPPERS, type_name

_AMP_DTYPES = ("float16", "bfloat16", "float32", "float64")  # of mmengine's wrapper


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """An ``OptimWrapper`` whose forward pass runs under bfloat16 autocast.

    bfloat16 has the range of float32, so no loss scaling is needed; ``AmpOptimWrapper`` would also
    serve on accelerators but does not start on a CPU.

    Args:
        optimizer: The optimizer.
        accumulative_counts: Batches whose gradients are added up for a step.
        clip_grad: Arguments of torch's clipping of gradients; None for no clipping.

    Raises:
        ValueError: An argument has no meaning.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        accumulative_counts: int = 1,
        clip_grad: dict | None = None,
    ) -> None:
        owner = "BFloat16OptimWrapper"
        with_methods(owner, "optimizer", optimizer, "step", "zero_grad")
        counts = whole_number(owner, "accumulative_counts", accumulative_counts, least=1)
        clip_grad = config(owner, "clip_grad", clip_grad, what="a dict", or_none=True)
        super().__init__(optimizer, counts, clip_grad or None)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast on the model's device; gradient synchronisation does not change."""
        device = next(model.parameters()).device.type
        autocast = torch.autocast(device, dtype=torch.bfloat16)
        with super().optim_context(model), autocast, _float32_scores(model):
            yield


@contextmanager
def _float32_scores(model: nn.Module) -> Iterator[None]:
    """Compute scores of a classification head in float32 in the block.

    mmaction2's heads compute an accuracy in numpy, which has no bfloat16.
    """
    head = getattr(getattr(model, "module", model), "cls_head", None)
    if not isinstance(head, nn.Module):
        yield
        return
    hook = head.register_forward_hook(lambda _module, _args, out: tree_map(_as_float32, out))
    try:
        yield
    finally:
        hook.remove()


def _as_float32(value: Any) -> Any:
    lower = isinstance(value, torch.Tensor) and value.dtype == torch.bfloat16
    return value.float() if lower else value


@building("config")
def enable_amp(cfg: Config) -> None:
    """Set the mixed-precision optimizer wrapper that works on this machine's device.

    Raises:
        UserError: The config uses another optimizer wrapper.
    """
    wrapper = cfg.get("optim_wrapper")
    kind = (type_name(wrapper) or "OptimWrapper") if isinstance(wrapper, dict) else None
    if kind not in ("OptimWrapper", "AmpOptimWrapper"):
        raise UserError(
            f"--amp replaces OptimWrapper, but the config's optim_wrapper is {kind}; leave --amp "
            "out or set optim_wrapper.type."
        )
    wrapper.type = "AmpOptimWrapper"
    wrapper.setdefault("loss_scale", "dynamic")


@building("config")
def serve_amp_on_cpu(cfg: Config) -> None:
    """Without an accelerator, train a config with ``AmpOptimWrapper`` in bfloat16.

    Raises:
        UserError: The config asks for a dtype that mmengine does not have.
    """
    wrapper = cfg.get("optim_wrapper")
    if get_device() != "cpu" or not isinstance(wrapper, dict):
        return
    if type_name(wrapper) != "AmpOptimWrapper":
        return
    dtype = wrapper.get("dtype")
    if dtype is not None and dtype not in _AMP_DTYPES and not isinstance(dtype, torch.dtype):
        raise UserError(
            f"optim_wrapper.dtype is {dtype!r}; give one of "
            f"{', '.join(map(repr, _AMP_DTYPES))}, or leave it out."
        )
    wrapper.type = "mmvitaccel.BFloat16OptimWrapper"
    for key in ("loss_scale", "dtype", "use_fsdp"):
        wrapper.pop(key, None)
    print_log("No accelerator: mixed precision runs on the CPU, in bfloat16.", logger="current")


@building("config")
def evaluate_in_float32_on_cpu(cfg: Config) -> None:
    """Without an accelerator, evaluate a config with ``fp16=True`` in float32.

    Autocast on a CPU gives bfloat16, which OpenMMLab's metrics cannot convert to numpy.
    """
    for key in ("val_cfg", "test_cfg") if get_device() == "cpu" else ():
        # Anything but a dict is refused by check_inputs
        if isinstance(cfg.get(key), dict) and cfg[key].get("fp16"):
            cfg[key].fp16 = False
            print_log(f"No accelerator: {key} runs in float32, without fp16.", logger="current")
