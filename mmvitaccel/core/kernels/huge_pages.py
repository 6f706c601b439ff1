"""Large tensors whose memory costs little to be touched for the first time."""

from __future__ import annotations

import ctypes
import sys

import torch
from torch import Tensor

#: Bytes from which on glibc asks the system for each tensor's memory anew, and gives it back.
ALWAYS_FRESH = 32 * 2**20
_MADV_HUGEPAGE = 14  # of Linux
_PAGE = 4096


def huge_empty_like(x: Tensor) -> Tensor:
    """``torch.empty_like(x)``, on a CPU in huge pages where Linux grants them.

    The system clears memory page by page as it is first written to; for a tensor of 40 MB that is
    more work than filling it, and less than half as much in pages of 2 MB.
    """
    out = torch.empty_like(x)
    if out.device.type == "cpu" and out.nbytes >= ALWAYS_FRESH and sys.platform == "linux":
        first = -(-out.data_ptr() // _PAGE) * _PAGE
        size = out.data_ptr() + out.nbytes - first
        # reason: no more than advice; where it is refused, all stays as it was
        ctypes.CDLL(None).madvise(
            ctypes.c_void_p(first), ctypes.c_size_t(size // _PAGE * _PAGE), _MADV_HUGEPAGE
        )
    return out
