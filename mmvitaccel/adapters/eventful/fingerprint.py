"""Whether a model is still the one that a stream's memory was made with."""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor, nn


def fingerprint(model: nn.Module) -> Hashable:
    """Something that differs once a weight, a dtype, a device or autocast changed.

    Place and version of every parameter and buffer tell nearly all changes. A copy through
    ``.data`` leaves both as they were (that is how mmengine swaps averaged weights in), so the
    norms of the one-dimensional parameters, biases and norm layers, are compared as well.
    """
    tensors = [*model.parameters(), *model.buffers()]
    places = tuple((t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors)
    return places, _norms(tensors), _autocast(tensors[0].device.type if tensors else "cpu")


def _norms(tensors: list[Tensor]) -> tuple[float, ...]:
    small = [t.detach() for t in tensors if t.ndim == 1 and t.is_floating_point()]
    if not small or small[0].is_meta:
        return ()
    return tuple(torch.stack([n.float() for n in torch._foreach_norm(small)]).tolist())


def _autocast(device_type: str) -> Hashable:
    if hasattr(torch, "get_autocast_dtype"):
        return torch.is_autocast_enabled(device_type) and torch.get_autocast_dtype(device_type)
    if device_type == "cpu":
        return torch.is_autocast_cpu_enabled() and torch.get_autocast_cpu_dtype()
    return torch.is_autocast_enabled() and torch.get_autocast_gpu_dtype()
