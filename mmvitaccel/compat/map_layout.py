"""Contiguous copies of maps for mmcv's compiled operators.

These operators use the address and the shape of a map but not its strides. For other memory
formats, such as channels-last after a LayerNorm over channels, they silently read wrong values.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch


def lay_out_maps(module: ModuleType) -> None:
    """Make the operators of an mmcv module copy maps that are not contiguous."""
    for kind in vars(module).values():
        is_operator = isinstance(kind, type) and issubclass(kind, torch.autograd.Function)
        if is_operator and kind.__module__ == module.__name__:
            kind.forward = staticmethod(_laid_out(kind.forward))


def _laid_out(forward: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(forward)
    def run(ctx: Any, *args: Any, **kwargs: Any) -> Any:
        given = [_contiguous(value) for value in args]
        return forward(ctx, *given, **{name: _contiguous(v) for name, v in kwargs.items()})

    return run


def _contiguous(value: Any) -> Any:
    return value.contiguous() if isinstance(value, torch.Tensor) else value
