"""Matching and merging of tokens, as torch operators (``merge.cpp``)."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from mmvitaccel.core.kernels.operators import cpu_operator, kernels, pointers, whole
from mmvitaccel.core.macs.formulas import register_macs_formula


class _Match(ctypes.Structure):
    """``Match`` of ``merge.cpp``."""

    _fields_ = [
        *whole("batch", "heads", "num_tokens", "dim"),
        *pointers("x"),
        *whole("of_image", "of_head", "of_token", "num_prefix", "num_merged", "normalized"),
        *pointers("kept", "src", "dst", "owner"),
    ]


class _Merge(ctypes.Structure):
    """``Merge`` of ``merge.cpp``."""

    _fields_ = [
        *whole("batch", "num_tokens", "channels", "num_merged"),
        *pointers("x", "size", "kept", "src", "dst", "out", "out_size"),
    ]


@cpu_operator(
    "match_tokens(Tensor x, int num_merged, int num_prefix, bool normalized) "
    "-> (Tensor, Tensor, Tensor, Tensor)"
)
def match_tokens(
    x: Tensor, num_merged: int, num_prefix: int, normalized: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Match tokens: the best edges from even positions to odd ones.

    Args:
        x: (B, heads, N, D), single precision on a CPU, D a multiple of 16 up to 128; the mean over
            the heads is compared.
        num_merged: r, from 1 to half of the tokens that are not protected.
        num_prefix: Number of protected leading tokens.
        normalized: Whether the similarity is the cosine; otherwise the inner product.

    Returns:
        The kept tokens (B, N - r), the merged tokens (B, r), the destination of each (B, r), and
        the new index of each previous token (B, N); all int64.
    """
    x = x if x.stride(3) == 1 else x.contiguous()
    batch, heads, num_tokens, dim = x.shape
    shapes = (num_tokens - num_merged, num_merged, num_merged, num_tokens)
    out = tuple(torch.empty(batch, size, dtype=torch.int64) for size in shapes)
    work = _Match(
        batch, heads, num_tokens, dim, x.data_ptr(), *x.stride()[:3],
        num_prefix, num_merged, normalized, *(t.data_ptr() for t in out),
    )  # fmt: skip
    kernels().match_tokens(ctypes.byref(work), torch.get_num_threads())
    return out


@cpu_operator(
    "merge_tokens(Tensor x, Tensor size, Tensor kept, Tensor src, Tensor dst) -> (Tensor, Tensor)"
)
def merge_tokens(
    x: Tensor, size: Tensor, kept: Tensor, src: Tensor, dst: Tensor
) -> tuple[Tensor, Tensor]:
    """Merge tokens into means weighted by size, and sum their sizes.

    Args:
        x: (B, N, C), single precision on a CPU.
        size: (B, N, 1), single precision on a CPU.
        kept: The kept tokens (B, N - r), int64.
        src: The merged tokens (B, r), int64.
        dst: Destination of each, an index among the kept tokens (B, r), int64.

    Returns:
        (B, N - r, C) and (B, N - r, 1).
    """
    x, size, kept, src, dst = (t.contiguous() for t in (x, size, kept, src, dst))
    batch, num_tokens, channels = x.shape
    left = kept.shape[1]
    out, out_size = torch.empty(batch, left, channels), torch.empty(batch, left, 1)
    given = (t.data_ptr() for t in (x, size, kept, src, dst, out, out_size))
    work = _Merge(batch, num_tokens, channels, num_tokens - left, *given)
    kernels().merge_tokens(ctypes.byref(work), torch.get_num_threads())
    return out, out_size


@register_macs_formula(match_tokens)
def _match_macs(x: Any, _merged: Any, num_prefix: Any, *_: Any, **__: Any) -> int:
    """Multiply-adds of the inner products of both sets."""
    free = x[2] - num_prefix
    return x[0] * x[3] * (free // 2) * (free - free // 2)


@register_macs_formula(merge_tokens)
def _merge_macs(*_: Any, **__: Any) -> int:
    """Zero: means of tokens are not counted as multiply-adds."""
    return 0
