"""Distances of tokens from the reference of a gate, as torch operators (``errors.cpp``)."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from mmvitaccel.core.kernels.operators import HALF, cpu_operator, kernels, pointers, whole
from mmvitaccel.core.macs.formulas import register_macs_formula


class _NormedErrors(ctypes.Structure):
    """``NormedErrors`` of ``errors.cpp``."""

    _fields_ = [
        *whole("num_rows", "channels", "half_reference", "half_x", "half_branch"),
        *pointers("reference", "x", "branch", "total"),
        *whole("normed"),
        *pointers("weight", "bias"),
        ("eps", ctypes.c_double),
        *pointers("errors"),
    ]


class _OutputErrors(ctypes.Structure):
    """``OutputErrors`` of ``errors.cpp``."""

    _fields_ = [
        *whole("num_listed", "heads", "dim", "half_reference", "half_out"),
        *pointers("reference", "out"),
        *whole("head_of_out", "row_of_out"),
        *pointers("denominator"),
        *whole("head_of_denominator"),
        *pointers("reference_rows", "out_rows", "errors"),
    ]


def _pointer(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


@cpu_operator(
    "normed_errors(Tensor reference, Tensor x, Tensor? branch, float? eps, Tensor? weight, "
    "Tensor? bias) -> (Tensor, Tensor)"
)
def normed_errors(
    reference: Tensor,
    x: Tensor,
    branch: Tensor | None,
    eps: float | None,
    weight: Tensor | None,
    bias: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Norms of u - norm(x + branch), in single precision.

    Tokens are rounded to the dtype of the reference, so unchanged tokens have no error.

    Args:
        reference: u, (B, N, C) on a CPU, float32 or bfloat16; the next two may have another of
            these dtypes.
        x: (B, N, C).
        branch: (B, N, C), or None.
        eps: Epsilon of layer normalisation; None for no norm.
        weight: Weight of the norm (C,), float32 or bfloat16, or None.
        bias: Bias of the norm (C,), or None.

    Returns:
        (B, N) float32, and x + branch (B, N, C), empty without a branch.
    """
    reference, x = reference.contiguous(), x.contiguous()
    branch = None if branch is None else branch.contiguous()
    weight, bias = (None if t is None else t.float() for t in (weight, bias))
    errors = torch.empty(x.shape[:2])
    total = torch.empty(0)
    if branch is not None:
        total = torch.empty(x.shape, dtype=torch.result_type(x, branch))
    work = _NormedErrors(
        errors.numel(), x.shape[2], reference.dtype == HALF, x.dtype == HALF,
        branch is not None and branch.dtype == HALF, reference.data_ptr(), x.data_ptr(),
        _pointer(branch), total.data_ptr(), eps is not None, _pointer(weight), _pointer(bias),
        eps or 0.0, errors.data_ptr(),
    )  # fmt: skip
    kernels().normed_errors(ctypes.byref(work), torch.get_num_threads())
    return errors, total


@cpu_operator(
    "output_errors(Tensor(a!) errors, Tensor reference, Tensor out, Tensor? denominator, "
    "Tensor? reference_rows, Tensor? out_rows) -> ()"
)
def output_errors(
    errors: Tensor,
    reference: Tensor,
    out: Tensor,
    denominator: Tensor | None,
    reference_rows: Tensor | None,
    out_rows: Tensor | None,
) -> None:
    """Norms of u - out / denominator, in single precision; see :func:`normed_errors`.

    Args:
        errors: (N,) float32, contiguous; changed in place.
        reference: u, (N, heads * D), contiguous, float32 or bfloat16; ``out`` may have another of
            these dtypes.
        out: (heads, rows, D).
        denominator: (heads, rows) float32, or None.
        reference_rows: Rows of the reference, int64; None for all in order.
        out_rows: Rows of the output, int64, the same number; None for all in order.
    """
    if not (errors.is_contiguous() and reference.is_contiguous()):
        raise ValueError("output_errors: errors and reference must be contiguous; copy them first.")
    out = out if out.stride(2) == 1 else out.contiguous()
    heads, num_rows, dim = out.shape
    if denominator is not None and denominator.stride(1) != 1:
        denominator = denominator.contiguous()
    work = _OutputErrors(
        num_rows if out_rows is None else len(out_rows), heads, dim,
        reference.dtype == HALF, out.dtype == HALF,
        reference.data_ptr(), out.data_ptr(), *out.stride()[:2],
        _pointer(denominator), 0 if denominator is None else denominator.stride(0),
        _pointer(reference_rows), _pointer(out_rows), errors.data_ptr(),
    )  # fmt: skip
    kernels().output_errors(ctypes.byref(work), torch.get_num_threads())


@register_macs_formula(normed_errors, output_errors)
def _macs(*_: Any, **__: Any) -> int:
    """Zero: norms are not counted as multiply-adds."""
    return 0
