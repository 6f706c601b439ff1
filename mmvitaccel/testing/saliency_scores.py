"""How well a map of saliency finds an object: best F, best IoU and AUC.

A map is taken relative to its own smallest and largest value. F weighs precision more than recall
(beta squared is 0.3), as is usual for saliency; F and IoU are those of the best threshold.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

BETA_SQUARED = 0.3


class Scores(NamedTuple):
    """Of one map, each from 0 to 1.

    Attributes:
        f: Best F over all thresholds.
        iou: Best intersection over union.
        auc: Area under the curve of true over false positives.
    """

    f: float
    iou: float
    auc: float


def scores_of(map_: np.ndarray, mask: np.ndarray) -> Scores:
    """Compare a map with the mask of the objects.

    Args:
        map_: (H, W), any scale: scores depend on the order of its values alone.
        mask: (H, W) bool.

    Raises:
        ValueError: The shapes differ, or the mask is empty or full, where nothing can be found.
    """
    if map_.shape != mask.shape:
        raise ValueError(f"scores_of: a map {map_.shape} for a mask {mask.shape}; resize one.")
    positives = int(mask.sum())
    negatives = mask.size - positives
    if not positives or not negatives:
        raise ValueError(
            f"scores_of: the mask has {positives} of {mask.size} pixels set; give one that has "
            "both kinds."
        )
    order = np.argsort(-map_, axis=None, kind="stable")
    values, hits = map_.ravel()[order], mask.ravel()[order]
    # reason: pixels of one value are above a threshold all together or not at all
    last = np.append(values[1:] != values[:-1], True)
    true = np.cumsum(hits)[last]
    false = np.cumsum(~hits)[last]
    precision, recall = true / (true + false), true / positives
    weighed = BETA_SQUARED * precision + recall
    f = (1 + BETA_SQUARED) * precision * recall / np.maximum(weighed, np.finfo(float).tiny)
    x, y = np.append(0, false / negatives), np.append(0, recall)
    area = float(((x[1:] - x[:-1]) * (y[1:] + y[:-1])).sum() / 2)
    return Scores(float(f.max()), float((true / (positives + false)).max()), area)
