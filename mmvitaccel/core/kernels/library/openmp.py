"""The OpenMP runtime of torch, for the kernels' threads.

Kernels run on torch's own threads. The runtime differs: torch from PyPI includes GNU's under a
special name; conda's includes LLVM's or Intel's, which also support GNU's calls; a preloaded
runtime takes precedence over both. The kernels are therefore not linked with a runtime, but get the
addresses of the functions that torch uses.
"""

from __future__ import annotations

import ctypes

import torch

FUNCTIONS = ("GOMP_parallel", "GOMP_barrier")


def torch_runtime() -> list[ctypes.c_void_p] | None:
    """Addresses of ``FUNCTIONS`` in torch's runtime; None if it does not have them.

    Like the dynamic linker, it searches globally loaded libraries first, then those that torch is
    linked with.
    """
    for place in (None, torch._C.__file__):
        library = ctypes.CDLL(place)
        try:
            return [ctypes.cast(getattr(library, name), ctypes.c_void_p) for name in FUNCTIONS]
        except AttributeError:
            continue
    return None


def runtime_is_gnu() -> bool:
    """Whether the functions are GNU's own, not LLVM's or Intel's compatible ones."""
    for place in (None, torch._C.__file__):
        library = ctypes.CDLL(place)
        if all(hasattr(library, name) for name in FUNCTIONS):
            return not hasattr(library, "__kmpc_fork_call")
    return False
