"""Metrics of saliency maps: best F-measure, best IoU and AUC.

The F-measure weighs precision more than recall (beta squared is 0.3), as usual for saliency. F and
IoU are those at the best threshold.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

BETA_SQUARED = 0.3


class Scores(NamedTuple):
    """Metrics of one map, each from 0 to 1.

    Attributes:
        f: Best F-measure over all thresholds.
        iou: Best intersection over union over all thresholds.
        auc: Area under the ROC curve.
    """

    f: float
    iou: float
    auc: float


def scores_of(map_: np.ndarray, mask: np.ndarray) -> Scores:
    """Compare a saliency map with the mask of the objects.

    Args:
        map_: (H, W), any scale: the metrics only depend on the order of the values.
        mask: (H, W) bool.

    Raises:
        ValueError: If the shapes differ, or if the mask is empty or full.
    """
    if map_.shape != mask.shape:
        raise ValueError(
            f"scores_of: the map has shape {map_.shape} and the mask {mask.shape}; resize one."
        )
    positives = int(mask.sum())
    negatives = mask.size - positives
    if not positives or not negatives:
        raise ValueError(
            f"scores_of: the mask has {positives} of {mask.size} pixels set; give one that has "
            "both kinds."
        )
    order = np.argsort(-map_, axis=None, kind="stable")
    values, hits = map_.ravel()[order], mask.ravel()[order]
    # Pixels of equal value are on the same side of every threshold.
    last = np.append(values[1:] != values[:-1], True)
    true = np.cumsum(hits)[last]
    false = np.cumsum(~hits)[last]
    precision, recall = true / (true + false), true / positives
    weighed = BETA_SQUARED * precision + recall
    f = (1 + BETA_SQUARED) * precision * recall / np.maximum(weighed, np.finfo(float).tiny)
    x, y = np.append(0, false / negatives), np.append(0, recall)
    area = float(((x[1:] - x[:-1]) * (y[1:] + y[:-1])).sum() / 2)
    return Scores(float(f.max()), float((true / (positives + false)).max()), area)
