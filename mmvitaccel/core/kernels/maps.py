"""Sequences of steps over maps in one call, as a torch operator (``maps.cpp``)."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mmvitaccel.core.kernels.openmp_wait import share_cores
from mmvitaccel.core.kernels.operators import cpu_operator, kernels, pointers, whole
from mmvitaccel.core.macs.formulas import register_macs_formula

PRODUCT, PLANES, DEPTHWISE, MEANS, ATTENTION = range(5)
NONE, RELU, SIGMOID = range(3)


class Windows(ctypes.Structure):
    """``Windows`` of ``maps.cpp``."""

    _fields_ = whole("height", "width", "down", "across")

    @property
    def tokens(self) -> int:
        """Pixels of a window."""
        return self.height * self.width


class Step(ctypes.Structure):
    """``Step`` of ``maps.cpp``."""

    _fields_ = [
        *whole("kind", "images", "height", "width", "in_channels", "out_channels"),
        *pointers("in_"),
        *whole("in_step"),
        *pointers("out"),
        *whole("out_step", "kernel", "stride", "act", "joined"),
        *pointers("weight", "bias", "residual", "scale"),
        ("windows", Windows),
        *pointers("previous"),
        *whole("key_channels"),
        *pointers("rectified"),
        *whole("rectified_step"),
        *pointers("attention_bias"),
    ]


@cpu_operator("run_steps(Tensor(a!)[] maps, int steps, int count, int macs) -> ()")
def run_steps(maps: list[Tensor], steps: int, count: int, macs: int) -> None:
    """Run steps one after the other.

    Args:
        maps: All tensors that the steps read and write, on a CPU; the steps have their addresses.
        steps: Address of an array of :class:`Step`.
        count: Length of the array.
        macs: Number of multiply-adds of the steps.
    """
    share_cores(maps[0])
    kernels().run_steps(
        ctypes.c_void_p(steps), ctypes.c_int64(count), ctypes.c_int(torch.get_num_threads())
    )


@register_macs_formula(run_steps)
def _macs(_maps: Any, _steps: Any, _count: Any, macs: int, **_: Any) -> int:
    """Multiply-adds as given by the caller."""
    return macs


def lanes() -> int:
    """Number of values in a vector; channels must be multiples of it."""
    return kernels().map_lanes()


def deepest() -> int:
    """Largest number of inputs of a product."""
    return kernels().map_depth()


def pack(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Pack weights (out, in) and bias (out,) into panels of outputs for a product."""
    panel = kernels().map_panel()
    fill = -weight.shape[0] % panel
    panels = F.pad(weight.float(), (0, 0, 0, fill)).unflatten(0, (-1, panel))
    return panels.transpose(1, 2).contiguous(), F.pad(bias.float(), (0, fill)).contiguous()
