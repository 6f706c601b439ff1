"""Detects changes of a model since a stream's state was created."""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor, nn

from mmvitaccel.core.torch_modes import autocast_dtype


def fingerprint(model: nn.Module) -> Hashable:
    """A value that changes when a weight, a dtype, a device or autocast changes.

    Addresses and versions of parameters and buffers detect nearly all changes; :func:`norms`
    detects the others.
    """
    tensors = [*model.parameters(), *model.buffers()]
    places = tuple((t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors)
    return places, autocast_dtype(tensors[0].device.type if tensors else "cpu")


def norms(model: nn.Module) -> Tensor | None:
    """Norms of the one-dimensional parameters and buffers, (n,) float32 on their device.

    A copy through ``.data``, with which mmengine swaps in averaged weights, does not change address
    and version; biases and norm layers reveal it. None if the model has none of these.
    """
    tensors = [*model.parameters(), *model.buffers()]
    small = [t.detach() for t in tensors if t.ndim == 1 and t.is_floating_point()]
    if not small or small[0].is_meta:
        return None
    return torch.stack([n.float() for n in torch._foreach_norm(small)])
