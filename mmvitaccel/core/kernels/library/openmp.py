"""The OpenMP runtime of torch, for the kernels' threads.

Kernels run on torch's own threads. Which runtime that is differs: torch from PyPI brings GNU's,
under a name of its own; conda's brings LLVM's or Intel's, which serve GNU's calls too; a runtime
that is preloaded stands before both. So the kernels are not linked with any: they are given the
functions that torch's own calls go to.
"""

from __future__ import annotations

import ctypes

import torch

FUNCTIONS = ("GOMP_parallel", "GOMP_barrier")


def torch_runtime() -> list[ctypes.c_void_p] | None:
    """Addresses of ``FUNCTIONS`` in the runtime that torch uses; None if it has no such functions.

    As the dynamic linker does, it looks first in what is loaded for everybody, then in what torch
    is linked with.
    """
    for place in (None, torch._C.__file__):
        library = ctypes.CDLL(place)
        try:
            return [ctypes.cast(getattr(library, name), ctypes.c_void_p) for name in FUNCTIONS]
        except AttributeError:
            continue
    return None


def runtime_is_gnu() -> bool:
    """Whether the functions are GNU's own, and not LLVM's or Intel's that serve the same calls."""
    for place in (None, torch._C.__file__):
        library = ctypes.CDLL(place)
        if all(hasattr(library, name) for name in FUNCTIONS):
            return not hasattr(library, "__kmpc_fork_call")
    return False
