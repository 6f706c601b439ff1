"""Precision of a finished evaluation by the motion of objects, as in FGFA (ICCV 2017)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from pycocotools import mask
from pycocotools.cocoeval import COCOeval

from mmvitaccel.metrics.object_motion import GROUPS


class MotionPrecision:
    """Weights of detections for the objects of one motion group.

    Boxes are matched once, with the objects of all groups. For a group, a detection that matches
    one of its objects is a true positive, and one that matches an object of another group is
    ignored. An unmatched detection is a false positive if the object with which it overlaps most,
    of any class in its frame, belongs to the group, and is ignored if that object belongs to
    another group. In case of a tie it has a fractional weight: in a frame without objects the
    group's share of all objects, otherwise the other groups' share of the frame's objects, as in
    the released code.

    Args:
        evaluation: A ``COCOeval`` whose ``evaluate`` has run with one area range.
        groups: Motion group of each object, by its id in the evaluation.
    """

    def __init__(self, evaluation: COCOeval, groups: Mapping[int, str]) -> None:
        self.evaluation = evaluation
        self.groups = groups
        counted = [groups[gt["id"]] for gts in evaluation._gts.values() for gt in gts]
        self.shares = {g: counted.count(g) / max(len(counted), 1) for g in GROUPS}
        self.false = dict(self._false_weights())

    def precision(self, group: str) -> np.ndarray:
        """Precision by overlap, recall and class, (T, 101, K); -1 where a class has no object."""
        params = self.evaluation.params
        shape = (len(params.iouThrs), len(params.recThrs), len(params.catIds))
        result = -np.ones(shape)
        frames = len(params.imgIds)
        for column in range(len(params.catIds)):
            of_class = self.evaluation.evalImgs[column * frames : (column + 1) * frames]
            of_class = [image for image in of_class if image is not None]
            objects = [
                self.groups[id_]
                for image in of_class
                for id_, ignored in zip(image["gtIds"], image["gtIgnore"])
                if not ignored
            ]
            if group in objects:
                result[:, :, column] = self._of_class(of_class, group, objects.count(group))
        return result

    def _of_class(self, images: list[dict[str, Any]], group: str, objects: int) -> np.ndarray:
        """Interpolated precision of one class, (T, 101)."""
        order = np.argsort(
            -np.concatenate([image["dtScores"] for image in images]), kind="mergesort"
        )
        matched = np.concatenate([image["dtMatches"] for image in images], axis=1)[:, order]
        ignored = np.concatenate([image["dtIgnore"] for image in images], axis=1)[:, order]
        ids = np.array([id_ for image in images for id_ in image["dtIds"]], dtype=int)[order]
        weights = np.array([self.false[group, id_] for id_ in ids])
        rows = []
        for match, ignore in zip(matched, ignored.astype(bool)):
            own = np.array([m > 0 and self.groups[int(m)] == group for m in match], dtype=bool)
            true = np.cumsum(own & ~ignore)
            false = np.cumsum(np.where((match == 0) & ~ignore, weights, 0.0))
            at = true / np.maximum(true + false, np.finfo(float).eps)
            best = np.append(np.maximum.accumulate(at[::-1])[::-1], 0.0)
            recalls = self.evaluation.params.recThrs
            rows.append(best[np.searchsorted(true / objects, recalls, side="left")])
        return np.stack(rows)

    def _false_weights(self) -> Iterator[tuple[tuple[str, int], float]]:
        """Weight of each unmatched detection for each group."""
        params = self.evaluation.params
        for image in params.imgIds:
            gts = [gt for c in params.catIds for gt in self.evaluation._gts[image, c]]
            dts = [dt for c in params.catIds for dt in self.evaluation._dts[image, c]]
            if not dts:
                continue
            overlaps = np.zeros((len(dts), 0))
            if gts:
                boxes = ([dt["bbox"] for dt in dts], [gt["bbox"] for gt in gts])
                overlaps = np.asarray(mask.iou(*boxes, [0] * len(gts)))
            kinds = np.array([self.groups[gt["id"]] for gt in gts])
            for group in GROUPS:
                own = kinds == group
                nearest, others = (
                    overlaps[:, chosen].max(axis=1, initial=-1.0) for chosen in (own, ~own)
                )
                equal = 1 - own.mean() if gts else self.shares[group]
                weights = np.where(nearest == others, equal, nearest > others)
                for dt, weight in zip(dts, weights):
                    yield (group, dt["id"]), float(weight)
