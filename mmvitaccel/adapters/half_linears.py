"""Linear layers of a part in half precision, in the faster of two ways.

They change their class only at the first frame in half precision: other programs recognise a linear
layer by its exact class, such as torch's dynamic quantization and counters of multiply-adds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from mmvitaccel.adapters.attach import Swap, extend, link
from mmvitaccel.adapters.base import host_class
from mmvitaccel.core.kernels.half_linear import converts, half_linear
from mmvitaccel.core.torch_modes import is_compiling


def convert_linears(root: nn.Module, method: str, parts: Iterable[nn.Module], x: Tensor) -> None:
    """Attach ``method`` to the linear layers of the parts, if a frame is in half precision.

    Args:
        root: The module with the method.
        method: Its name.
        parts: Modules that contain the layers.
        x: The frame's tokens or maps.
    """
    state = link(root, method).state
    if state.converts or is_compiling() or not converts(x):
        return
    layers = (m for part in parts for m in part.modules() if host_class(m) is nn.Linear)
    extend(root, method, [Swap(layer, {"forward": _forward}) for layer in layers])
    state.converts = True


def _forward(layer: nn.Linear, host: Any, x: Tensor) -> Tensor:
    out = None if layer.training else half_linear(layer, x)
    return host(x) if out is None else out
