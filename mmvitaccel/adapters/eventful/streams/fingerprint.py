"""Detects changes of a model since a stream's state was created."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from mmvitaccel.core.torch_modes import autocast_dtype

# Numbers are not among them, because modules count and time their calls in attributes.
_SETTINGS = (bool, str)
# Packages of hosts, whose modules do not change in use; others may be adapters around these.
_HOSTS = {"mmaction", "mmcv", "mmdet", "mmengine", "mmpretrain", "mmvitaccel", "timm", "torch"}
_HOSTS |= {"rfdetr", "segment_anything", "transformers"}
_FEW = 8  # most of them in a list, such as that of active adapters


def fingerprint(model: nn.Module) -> Hashable:
    """A value that changes when a weight, a module, a dtype, a device or autocast changes.

    Addresses and versions of parameters and buffers detect nearly all changes of weights;
    :func:`norms` detects the others. Switches and names in modules of other packages detect
    adapters (LoRA) that are turned on, off or exchanged without a change of a weight.
    """
    tensors = list(_tensors(model))
    places = tuple((t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors)
    modules = tuple((id(module), _settings(module)) for module in model.modules())
    device = tensors[0].device.type if tensors else "cpu"
    return places, modules, autocast_dtype(device)


def norms(model: nn.Module) -> Tensor | None:
    """Norms of some values of each parameter and buffer, (n,) float32 on their device.

    A change through ``.data`` does not change address and version: mmengine swaps in averaged
    weights so, and adapters (LoRA) are merged so. Biases, norm layers and the first row of each
    matrix reveal it. None if the model has no values.
    """
    with torch.no_grad():
        some = [
            t if t.ndim == 1 else t[0]
            for t in _tensors(model)
            if t.ndim and len(t) and t.is_floating_point() and not t.is_meta
        ]
        if not some:
            return None
        device = some[0].device
        return torch.stack([n.to(device, torch.float32) for n in torch._foreach_norm(some)])


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    """Parameters and buffers; of those that FSDP distributes, the part of this process."""
    for module in model.modules():
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            if tensor is not None:
                yield getattr(tensor, "_local_tensor", tensor)


def _settings(module: nn.Module) -> Hashable:
    if type(module).__module__.partition(".")[0] in _HOSTS:
        return None
    found = []
    for value in vars(module).values():
        if type(value) in _SETTINGS:
            found.append(value)
        elif type(value) in (list, tuple, set) and _are_settings(value):
            found.append(repr(value))
    return tuple(found)


def _are_settings(values: Collection[Any]) -> bool:
    return 0 < len(values) <= _FEW and all(type(value) in _SETTINGS for value in values)
