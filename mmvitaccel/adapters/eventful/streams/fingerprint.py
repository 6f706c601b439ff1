"""Whether a model is still the one that a stream's memory was made with."""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor, nn

from mmvitaccel.core.torch_modes import autocast_dtype


def fingerprint(model: nn.Module) -> Hashable:
    """Something that differs once a weight, a dtype, a device or autocast changed.

    Place and version of every parameter and buffer tell nearly all changes; :func:`norms` tell the
    others.
    """
    tensors = [*model.parameters(), *model.buffers()]
    places = tuple((t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors)
    return places, autocast_dtype(tensors[0].device.type if tensors else "cpu")


def norms(model: nn.Module) -> Tensor | None:
    """Norms of the one-dimensional parameters and buffers, (n,) float32 on their device.

    A copy through ``.data`` leaves place and version as they were (that is how mmengine swaps
    averaged weights in); biases and norm layers tell it. None where a model has none.
    """
    tensors = [*model.parameters(), *model.buffers()]
    small = [t.detach() for t in tensors if t.ndim == 1 and t.is_floating_point()]
    if not small or small[0].is_meta:
        return None
    return torch.stack([n.float() for n in torch._foreach_norm(small)])
