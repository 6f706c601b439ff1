"""numpy as some of OpenMMLab's modules expect it, from before 1.24 or before 2.

mmdet's fast recall of proposals makes one array of matrices of several sizes, and its evaluation of
YouTube-VIS and mmcv's grouping of pixels use ``np.float``. Newer numpy refuses both, when all
pictures are done. mmaction2's ``ColorJitter`` adds negative numbers to hues in uint8, which numpy 2
refuses.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import cv2
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


def serve_old_integers(module: ModuleType) -> None:
    """Make ``ColorJitter`` of mmaction2's module turn hues in both directions."""
    module.ColorJitter.adjust_hue = staticmethod(adjust_hue)


def adjust_hue(img: np.ndarray, factor: float) -> np.ndarray:
    """Turn the hues of a picture as mmaction2 does.

    Args:
        img: (H, W, 3), RGB, of 0 to 255.
        factor: Share of a turn in steps of 1 / 255; OpenCV's hues have 180 steps.

    Returns:
        (H, W, 3) float32, RGB.
    """
    hsv = cv2.cvtColor(np.clip(img, 0, 255).astype(np.uint8), cv2.COLOR_RGB2HSV)
    hues = hsv[..., 0].astype(np.int16) + int(factor * 255)
    hsv[..., 0] = (hues % 180).astype(np.uint8)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB).astype(np.float32)
