"""The inner loop of exact attention, compiled where the machine has a C++ compiler.

``exchange.cpp`` beside this file is compiled when it is first wanted, for the processor that it is
to run on, and kept in the user's cache; it includes no header but the language's own, so that a
compiler is all it needs (``CXX`` names it, else ``c++``). Without one the same is computed by
torch's operators, more slowly.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmvitaccel.core.macs_formulas import register_macs_formula

SOURCE = Path(__file__).with_name("exchange.cpp")
FLAGS = ("-O3", "-march=native", "-std=c++17", "-fPIC", "-fopenmp")

_POINTER, _WHOLE, _NUMBER = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
_ARGUMENTS = (
    *(_WHOLE,) * 5, *(_POINTER,) * 9, _NUMBER, *(_POINTER,) * 4, *(_WHOLE,) * 3, ctypes.c_int,
)  # fmt: skip


@functools.cache
def exchange_kernel() -> Callable[..., int] | None:
    """``exchange_keys`` of ``exchange.cpp``, or None where it cannot be compiled or loaded."""
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        return None
    try:
        kernel = ctypes.CDLL(str(_library(compiler))).exchange_keys
    except (OSError, RuntimeError, subprocess.SubprocessError):  # RuntimeError: there is no home
        return None
    kernel.argtypes = _ARGUMENTS
    return kernel


def _library(compiler: str) -> Path:
    """The compiled file, made if it is not in the cache."""
    # reason: these macros tell compiler, version and processor: a cache may be on a shared disk.
    macros = _run(compiler, *FLAGS, "-E", "-dM", "-x", "c++", os.devnull)
    parts = (SOURCE.read_bytes(), macros, " ".join(FLAGS).encode(), platform.machine().encode())
    key = hashlib.sha256(b"\n".join(parts)).hexdigest()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmvitaccel"
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    library = cache / f"exchange-{key[:16]}.so"
    if not library.exists():
        # Made beside and moved: processes that start together each find a whole file or none.
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            part, made = Path(folder) / "exchange.o", Path(folder) / library.name
            _run(compiler, *FLAGS, "-c", SOURCE, "-o", part)
            # reason: without -fopenmp, so that OpenMP's calls find the runtime that torch loaded.
            _run(compiler, "-shared", part, "-o", made)
            os.replace(made, library)
    return library


def _run(*command: str | Path) -> bytes:
    return subprocess.run(command, check=True, capture_output=True, timeout=300).stdout


def can_exchange(q: Tensor) -> bool:
    """Whether :func:`exchange` serves queries (heads, N, D) like these."""
    fits = q.device.type == "cpu" and q.dtype == torch.float32
    return fits and q.shape[-1] % 16 == 0 and q.shape[-1] <= 128 and exchange_kernel() is not None


# reason: as one of torch's operators it is seen by whoever watches those, the counter first of all.
_LIBRARY = torch.library.Library("mmvitaccel", "DEF")
_LIBRARY.define(
    "exchange_keys(Tensor q, Tensor shift, Tensor(a!) denominator, Tensor(b!) numerator, "
    "Tensor rows, Tensor old_k, Tensor new_k, Tensor old_v, Tensor new_v, float scale, "
    "Tensor? rows_h, Tensor? rows_w, Tensor? place) -> ()"
)


def exchange(
    q: Tensor,
    shift: Tensor,
    denominator: Tensor,
    numerator: Tensor,
    rows: Tensor,
    old: tuple[Tensor, Tensor],
    new: tuple[Tensor, Tensor],
    scale: float,
    positions: tuple[Tensor, Tensor, Tensor] | None,
) -> None:
    """Take the old terms of changed keys off some rows and put the new ones on.

    Args:
        q: (heads, N, D), single precision on a CPU, as are all numbers here.
        shift: (heads, N), contiguous, as are the next two.
        denominator: (heads, N), changed in place.
        numerator: (heads, N, D), changed in place.
        rows: (R,) int64, those that are changed.
        old: Keys and values as they were, (heads, L, D) each.
        new: Keys and values as they are.
        scale: Factor of the products of queries and keys.
        positions: Rows of relative positions (H, key rows, D) and (W, key columns, D), and the
            place of each changed key in row-major order (L,); None where there are none.
    """
    torch.ops.mmvitaccel.exchange_keys(
        q, shift, denominator, numerator, rows, old[0], new[0], old[1], new[1], scale,
        *(positions or (None, None, None)),
    )  # fmt: skip


def _exchange_on_cpu(
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
    if not (denominator.is_contiguous() and numerator.is_contiguous()):
        raise ValueError("exchange: denominator and numerator must be contiguous; copy them first.")
    heads, num_rows, dim = q.shape
    given = [t.contiguous() for t in (rows, q, shift, numerator, denominator)]
    given += [t.contiguous() for t in (old_k, new_k, old_v, new_v)]
    tables: list[Tensor | None] = [None] * 4
    grid_width, widths = 1, (0, 0)
    if place is not None:
        grid_width, columns = rows_w.shape[:2]
        y, x = place.div(columns, rounding_mode="floor"), place.remainder(columns)
        tables = [_packed(rows_h), _packed(rows_w), y.int(), x.int()]
        widths = (tables[0].shape[2], tables[1].shape[2])
    exchange_kernel()(
        heads, num_rows, dim, old_k.shape[1], len(rows),
        *(t.data_ptr() for t in given), scale, *(t if t is None else t.data_ptr() for t in tables),
        grid_width, *widths, torch.get_num_threads(),
    )  # fmt: skip


_LIBRARY.impl("exchange_keys", _exchange_on_cpu, "CPU")


@register_macs_formula(torch.ops.mmvitaccel.exchange_keys)
def _macs(q: Any, _m: Any, _d: Any, _n: Any, rows: Any, old_k: Any, *rest: Any, **_: Any) -> int:
    """Logits and weighted sums with the old and the new keys, and the rows' position terms."""
    rows_h, rows_w = rest[4:6]
    positions = 0 if rows_h is None else rows_h[1] + rows_w[1]
    return q[0] * rows[0] * q[2] * (4 * old_k[1] + positions)


def _packed(rows: Tensor) -> Tensor:
    """(positions, keys, D) to (positions, D, keys), keys filled up to a multiple of 16."""
    rows = torch.nn.functional.pad(rows.float(), (0, 0, 0, -rows.shape[1] % 16))
    return rows.transpose(1, 2).contiguous()
