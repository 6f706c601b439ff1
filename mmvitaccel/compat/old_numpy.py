"""numpy as some of OpenMMLab's modules expect it, from before 1.24.

mmdet's fast recall of proposals makes one array of matrices of several sizes, and its evaluation of
YouTube-VIS and mmcv's grouping of pixels use ``np.float``. Newer numpy refuses both, when all
pictures are done.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np


class _OldNumpy(ModuleType):
    """numpy, with ``float`` and with arrays of objects for lists of unequal arrays."""

    float = float

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    @staticmethod
    def array(values: Any, *args: Any, **kwargs: Any) -> np.ndarray:
        """Call ``numpy.array``; arrays of several shapes become the items of an array."""
        arrays = isinstance(values, list) and all(isinstance(v, np.ndarray) for v in values)
        if args or kwargs or not arrays or len({v.shape for v in values}) < 2:
            return np.array(values, *args, **kwargs)
        held = np.empty(len(values), dtype=object)
        for index, value in enumerate(values):
            held[index] = value
        return held


def serve_old_numpy(module: ModuleType) -> None:
    """Give a module numpy as it was."""
    module.np = _OldNumpy("numpy")
