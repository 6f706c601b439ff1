"""Runs frames of one stream in a batch one after the other."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any

import torch
from torch import Tensor


def in_turn(
    run: Callable[..., Any], size: int, dim: int, args: tuple, kwargs: dict[str, Any]
) -> Any:
    """Call ``run`` for each image of a batch, and join the results.

    Args:
        run: Function called with each image's part of the arguments.
        size: Number of images in the batch.
        dim: Batch dimension of tensors, also in nested lists, tuples and dicts.
        args: Positional arguments of the whole batch.
        kwargs: Keyword arguments of the whole batch.
    """
    outs = []
    for place in range(size):
        part = functools.partial(_part, place=place, size=size, dim=dim)
        own = {name: part(value) for name, value in kwargs.items()}
        outs.append(run(*map(part, args), **own))
    return _together(outs, dim)


def _part(value: Any, place: int, size: int, dim: int) -> Any:
    if isinstance(value, Tensor):
        batched = value.dim() > dim and value.shape[dim] == size
        return value.narrow(dim, place, 1) if batched else value
    if type(value) in (list, tuple):
        return type(value)(_part(item, place, size, dim) for item in value)
    return value


def _together(outs: list[Any], dim: int) -> Any:
    first = outs[0]
    if isinstance(first, Tensor):
        return torch.cat(outs, dim) if first.dim() > dim else first
    if type(first) in (list, tuple):
        return type(first)(_together(list(parts), dim) for parts in zip(*outs))
    if isinstance(first, dict):
        whole = {name: _together([out[name] for out in outs], dim) for name in first}
        # transformers' outputs are dataclasses and dicts at once
        return type(first)(**whole) if is_dataclass(first) else whole
    return first
