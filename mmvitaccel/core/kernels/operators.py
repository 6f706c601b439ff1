"""C++ kernels as torch operators.

The sources are next to this file; :mod:`mmvitaccel.core.kernels.library` compiles them. Without
compiled kernels, torch's operators compute the same result more slowly.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mmvitaccel.core.kernels.library.choice import chosen
from mmvitaccel.core.torch_modes import is_compiling

#: Half-precision type of inputs and outputs; kernels compute in single precision.
HALF = torch.bfloat16

_LIBRARY = torch.library.Library("mmvitaccel", "FRAGMENT")


def whole(*names: str) -> list[tuple[str, Any]]:
    """Integer fields of a structure."""
    return [(name, ctypes.c_int64) for name in names]


def pointers(*names: str) -> list[tuple[str, Any]]:
    """Fields of a structure that point to a tensor's data."""
    return [(name, ctypes.c_void_p) for name in names]


class Positions(ctypes.Structure):
    """``Positions`` of ``rows.h``."""

    _fields_ = pointers("height", "width") + whole("grid_width", "key_rows", "key_columns")


def kernels() -> ctypes.CDLL | None:
    """The compiled kernels, or None if there are none."""
    return chosen().library


def cpu_operator(schema: str) -> Callable[[Callable], Callable]:
    """Register a function as a torch operator for CPUs, ``torch.ops.mmvitaccel.NAME``.

    Operators are visible to dispatch modes, such as the counter of multiply-adds.

    Args:
        schema: Name, arguments and returns in torch's notation.

    Returns:
        A decorator that returns the operator instead of the function.
    """

    def register(function: Callable) -> Callable:
        name = _LIBRARY.define(schema)
        _LIBRARY.impl(name, function, "CPU")
        return getattr(torch.ops.mmvitaccel, name)

    return register


def can_run(*tensors: Tensor) -> bool:
    """Whether the kernels support these tensors in the current context."""
    if torch.jit.is_tracing() or is_compiling():  # an exported graph may run elsewhere
        return False
    if any(t.device.type != "cpu" or t.dtype not in (torch.float32, HALF) for t in tensors):
        return False
    return kernels() is not None


def can_attend(*tensors: Tensor) -> bool:
    """Whether the kernels support these queries, keys and values (..., D), all of one dtype."""
    dim, dtype = tensors[0].shape[-1], tensors[0].dtype
    if dim % 16 or not 0 < dim <= 128:
        return False
    if any(t.shape[-1] != dim or t.dtype != dtype for t in tensors):
        return False
    return can_run(*tensors)


def positions_of(rows_h: Tensor | None, rows_w: Tensor | None) -> tuple[Positions, list[Tensor]]:
    """Convert rows of relative positions, or None, for the kernels.

    Args:
        rows_h: (H, key rows, D).
        rows_w: (W, key columns, D).

    Returns:
        The structure, and the objects that must stay alive while it is used.
    """
    if rows_h is None:
        return Positions(None, None, 1, 0, 0), []
    packed = [_packed(rows_h), _packed(rows_w)]
    return (
        Positions(
            packed[0].data_ptr(), packed[1].data_ptr(), rows_w.shape[0],
            packed[0].shape[2], packed[1].shape[2],
        ),
        packed,
    )  # fmt: skip


def _packed(rows: Tensor) -> Tensor:
    """(positions, keys, D) to (positions, D, keys), with keys padded to a multiple of 16."""
    rows = torch.nn.functional.pad(rows.float(), (0, 0, 0, -rows.shape[1] % 16))
    return rows.transpose(1, 2).contiguous()
