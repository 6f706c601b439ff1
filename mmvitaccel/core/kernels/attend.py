"""Softmax attention with relative positions, as torch operators (``attend.cpp``)."""

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


class _Layout(ctypes.Structure):
    """``Layout`` of ``attend.cpp``."""

    _fields_ = whole("group", "head", "row")


class _Merged(ctypes.Structure):
    """``Merged`` of ``attend.cpp``."""

    _fields_ = [
        *pointers("terms"),
        ("of_terms", _Layout),
        *whole("num_terms"),
        *pointers("places", "starts"),
        *whole("num_places"),
        *pointers("bias"),
    ]


class _Attend(ctypes.Structure):
    """``Attend`` of ``attend.cpp``."""

    _fields_ = [
        *whole("groups", "heads", "num_rows", "num_keys", "dim", "half", "half_out"),
        *pointers("q", "k", "v"),
        *((name, _Layout) for name in ("of_q", "of_k", "of_v")),
        *pointers("slots"),
        *whole("slots_per_image", "padding"),
        *pointers("place", "out"),
        ("of_out", _Layout),
        *pointers("lse"),
        ("scale", ctypes.c_double),
        ("positions", Positions),
        *whole("keys_per_row"),
        ("merged", _Merged),
    ]


@cpu_operator(
    "attend(Tensor q, Tensor k, Tensor v, float scale, Tensor? rows_h, Tensor? rows_w, "
    "Tensor? place, ScalarType? dtype=None) -> (Tensor, Tensor)"
)
def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    rows_h: Tensor | None,
    rows_w: Tensor | None,
    place: Tensor | None,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """Attention of all rows over all keys, in single precision.

    Args:
        q: (B, heads, R, D) on a CPU, float32 or bfloat16 like keys and values.
        k: (B, heads, K, D).
        v: (B, heads, K, D).
        scale: Factor of the products of queries and keys.
        rows_h: Relative positions (H, key rows, D), or None.
        rows_w: Relative positions (W, key columns, D), or None.
        place: Grid position of each row in row-major order (B, R); None for all in order.
        dtype: Dtype of the output; None for that of the queries.

    Returns:
        The output (B, heads, R, D), and the log-sum-exp of each row (B, heads, R) in float32.
    """
    lse = torch.empty(q.shape[:3])
    place = None if place is None else place.contiguous()
    positions, _kept = positions_of(rows_h, rows_w)
    keys_per_row = 1 if rows_w is None else rows_w.shape[1]
    out = _run((q, k, v), dtype, scale, place, lse, positions, keys_per_row, _Merged())
    return out, lse


@cpu_operator(
    "attend_merged(Tensor q, Tensor k, Tensor v, float scale, Tensor terms, Tensor places, "
    "Tensor starts, Tensor? bias) -> Tensor"
)
def attend_merged(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    terms: Tensor,
    places: Tensor,
    starts: Tensor,
    bias: Tensor | None,
) -> Tensor:
    """Attention of merged tokens, where a key covers several positions of a grid.

    Args:
        q: (B, heads, R, D) on a CPU, float32 or bfloat16 like keys and values.
        k: (B, heads, K, D).
        v: (B, heads, K, D).
        scale: Factor of the products of queries and keys.
        terms: (B, heads, R, grid rows + grid columns) float32, the position terms of each row.
        places: (B, N, 2) int32, the indices of the two terms of each position, grouped by key.
        starts: (B, K + 1) int32, the start of each key's positions, followed by N.
        bias: (B, K) float32, added to the logits of each key, or None.

    Returns:
        (B, heads, R, D) in the dtype of the queries.
    """
    terms = terms if terms.stride(-1) == 1 else terms.contiguous()
    places, starts = places.contiguous(), starts.contiguous()
    bias = None if bias is None else bias.contiguous()
    merged = _Merged(
        terms.data_ptr(), _Layout(*terms.stride()[:3]), terms.shape[3],
        places.data_ptr(), starts.data_ptr(), places.shape[1],
        None if bias is None else bias.data_ptr(),
    )  # fmt: skip
    return _run((q, k, v), None, scale, None, None, positions_of(None, None)[0], 1, merged)


def _run(
    qkv: tuple[Tensor, Tensor, Tensor],
    dtype: torch.dtype | None,
    scale: float,
    place: Tensor | None,
    lse: Tensor | None,
    positions: Positions,
    keys_per_row: int,
    merged: _Merged,
) -> Tensor:
    """All rows over all keys; the caller keeps the memory behind the structures alive."""
    q, k, v = (t if t.stride(-1) == 1 else t.contiguous() for t in qkv)
    batch, heads, num_rows, dim = q.shape
    out = torch.empty(batch, num_rows, heads, dim, dtype=dtype or q.dtype)
    out = out.transpose(1, 2)  # in the layout that the next layer reads
    work = _Attend(
        batch, heads, num_rows, k.shape[2], dim, q.dtype == HALF, out.dtype == HALF,
        *(t.data_ptr() for t in (q, k, v)), *(_Layout(*t.stride()[:3]) for t in (q, k, v)),
        None, 1, -1, None if place is None else place.data_ptr(),
        out.data_ptr(), _Layout(*out.stride()[:3]), None if lse is None else lse.data_ptr(), scale,
        positions, keys_per_row, merged,
    )  # fmt: skip
    kernels().attend(ctypes.byref(work), torch.get_num_threads())
    return out


@cpu_operator(
    "attend_windows(Tensor qkv, Tensor slots, Tensor(a!) out, float scale, Tensor? rows_h, "
    "Tensor? rows_w) -> ()"
)
def attend_windows(
    qkv: Tensor,
    slots: Tensor,
    out: Tensor,
    scale: float,
    rows_h: Tensor | None,
    rows_w: Tensor | None,
) -> None:
    """Attention within windows.

    Args:
        qkv: (B, N + 1, 3, heads, D), contiguous, float32 or bfloat16; the last row of an image is
            padding, which is a key but not a query.
        slots: (W, T), rows of ``qkv`` with its first two axes flattened.
        out: (B, N + 1, heads * D), contiguous, float32 or bfloat16; changed in place except for
            padding.
        scale: Factor of the products of queries and keys.
        rows_h: Relative positions in a window (H, H, D), or None.
        rows_w: Relative positions in a window (W, W, D), or None.
    """
    if not (qkv.is_contiguous() and out.is_contiguous()):
        raise ValueError("attend_windows: qkv and out must be contiguous; copy them first.")
    _, num_rows, _, heads, dim = qkv.shape
    slots = slots.contiguous()
    parts = (qkv[:, :, part] for part in range(3))
    of_part = _Layout(0, dim, qkv.stride(1))
    positions, _kept = positions_of(rows_h, rows_w)
    work = _Attend(
        len(slots), heads, slots.shape[1], slots.shape[1], dim,
        qkv.dtype == HALF, out.dtype == HALF,
        *(part.data_ptr() for part in parts), of_part, of_part, of_part,
        slots.data_ptr(), num_rows, num_rows - 1, None,
        out.data_ptr(), _Layout(0, dim, heads * dim), None, scale,
        positions, 1 if rows_w is None else rows_w.shape[1],
    )  # fmt: skip
    kernels().attend(ctypes.byref(work), torch.get_num_threads())


@register_macs_formula(attend)
def _macs(
    q: Any, k: Any, _v: Any, _scale: Any, rows_h: Any, rows_w: Any, *_: Any, **__: Any
) -> int:
    """Multiply-adds of logits, weighted sums and the rows' position terms."""
    positions = 0 if rows_h is None else rows_h[1] + rows_w[1]
    return q[0] * q[1] * q[2] * q[3] * (2 * k[2] + positions)


@register_macs_formula(attend_merged)
def _merged_macs(q: Any, k: Any, _v: Any, _scale: Any, terms: Any, *_: Any, **__: Any) -> int:
    """Multiply-adds as for the product of the terms with the keys' mean one-hot positions."""
    return q[0] * q[1] * q[2] * k[2] * (2 * q[3] + terms[3])


@register_macs_formula(attend_windows)
def _window_macs(
    qkv: Any, slots: Any, _out: Any, _scale: Any, rows_h: Any, rows_w: Any, **_: Any
) -> int:
    """Multiply-adds as for complete windows, including skipped queries of padding."""
    positions = 0 if rows_h is None else rows_h[1] + rows_w[1]
    return slots[0] * slots[1] * qkv[3] * qkv[4] * (2 * slots[1] + positions)
