"""What torch does here and now: compile, or autocast. The names differ between releases."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def is_compiling() -> bool:
    """Whether ``torch.compile`` is reading this code."""
    if hasattr(torch.compiler, "is_compiling"):  # torch >= 2.3
        return torch.compiler.is_compiling()
    return torch._dynamo.is_compiling()


def is_transforming() -> bool:
    """Whether a transform of ``torch.func`` runs, such as ``vmap`` or ``grad``."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def without_autocast(device_type: str) -> AbstractContextManager:
    """Autocast off on such devices; it does not know meta tensors."""
    return nullcontext() if device_type == "meta" else torch.autocast(device_type, enabled=False)


def autocast_dtype(device_type: str) -> torch.dtype | None:
    """What autocast computes in on such devices here and now; None where it is off."""
    if hasattr(torch, "get_autocast_dtype"):  # torch >= 2.4
        on = torch.is_autocast_enabled(device_type)
        return torch.get_autocast_dtype(device_type) if on else None
    if device_type == "cpu":
        return torch.get_autocast_cpu_dtype() if torch.is_autocast_cpu_enabled() else None
    return torch.get_autocast_gpu_dtype() if torch.is_autocast_enabled() else None
