"""The exchange of changed keys in running sums, as a torch operator (``exchange.cpp``)."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from mmvitaccel.core.kernels.operators import (
    HALF,
    Positions,
    cpu_operator,
    kernels,
    pointers,
    positions_of,
    whole,
)
from mmvitaccel.core.macs.formulas import register_macs_formula


class _Exchange(ctypes.Structure):
    """``Exchange`` of ``exchange.cpp``."""

    _fields_ = [
        *whole("heads", "num_rows", "dim", "num_keys", "num_listed", "half"),
        *pointers("listed", "q", "shift", "numerator", "denominator"),
        *pointers("old_k", "new_k", "old_v", "new_v"),
        ("scale", ctypes.c_double),
        ("positions", Positions),
        *pointers("key_y", "key_x"),
    ]


@cpu_operator(
    "exchange_keys(Tensor q, Tensor shift, Tensor(a!) denominator, Tensor(b!) numerator, "
    "Tensor rows, Tensor old_k, Tensor new_k, Tensor old_v, Tensor new_v, float scale, "
    "Tensor? rows_h, Tensor? rows_w, Tensor? place) -> ()"
)
def exchange_keys(
    q: Tensor,
    shift: Tensor,
    denominator: Tensor,
    numerator: Tensor,
    rows: Tensor,
    old_k: Tensor,
    new_k: Tensor,
    old_v: Tensor,
    new_v: Tensor,
    scale: float,
    rows_h: Tensor | None,
    rows_w: Tensor | None,
    place: Tensor | None,
) -> None:
    """Replace the old terms of changed keys by the new ones in some rows.

    Args:
        q: (heads, N, D) on a CPU, float32 or bfloat16. The tensors changed in place are float32.
        shift: (heads, N), contiguous, as are the next two.
        denominator: (heads, N), changed in place.
        numerator: (heads, N, D), changed in place.
        rows: (R,) int64, the rows to change.
        old_k: Previous keys, (heads, L, D), float32 or bfloat16 like the next three.
        new_k: Current keys.
        old_v: Previous values, (heads, L, D).
        new_v: Current values.
        scale: Factor of the products of queries and keys.
        rows_h: Relative positions (H, key rows, D), or None.
        rows_w: Relative positions (W, key columns, D), or None.
        place: Grid position of each changed key in row-major order (L,); None without relative
            positions.
    """
    if not (denominator.is_contiguous() and numerator.is_contiguous()):
        raise ValueError("exchange: denominator and numerator must be contiguous; copy them first.")
    heads, num_rows, dim = q.shape
    given = [t.contiguous() for t in (rows, q, shift, numerator, denominator)]
    given += [t.float().contiguous() for t in (old_k, new_k, old_v, new_v)]
    positions, kept = positions_of(rows_h, rows_w)
    places: tuple[int | None, int | None] = (None, None)
    if place is not None:
        columns = rows_w.shape[1]
        kept += [place.div(columns, rounding_mode="floor").int(), place.remainder(columns).int()]
        places = (kept[-2].data_ptr(), kept[-1].data_ptr())
    work = _Exchange(
        heads, num_rows, dim, old_k.shape[1], len(rows), q.dtype == HALF,
        *(t.data_ptr() for t in given), scale, positions, *places,
    )  # fmt: skip
    kernels().exchange_keys(ctypes.byref(work), torch.get_num_threads())


@register_macs_formula(exchange_keys)
def _macs(q: Any, _m: Any, _d: Any, _n: Any, rows: Any, old_k: Any, *rest: Any, **_: Any) -> int:
    """Multiply-adds of logits and sums for old and new keys, and of the rows' position terms."""
    rows_h, rows_w = rest[4:6]
    positions = 0 if rows_h is None else rows_h[1] + rows_w[1]
    return q[0] * rows[0] * q[2] * (4 * old_k[1] + positions)
