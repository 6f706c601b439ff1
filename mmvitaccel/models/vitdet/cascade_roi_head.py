"""Cascade R-CNN that averages what its stages say as detectron2 does."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.roi_heads import CascadeRoIHead as MMDetCascadeRoIHead
from torch import Tensor

from mmvitaccel.registry import MODELS


@MODELS.register_module()
class CascadeRoIHead(MMDetCascadeRoIHead):
    """mmdet's cascade, but for the mean of the stages' scores when predicting.

    mmdet averages the stages' logits, detectron2 their probabilities; weights that were released
    for detectron2 give their published figures with the latter. Parameters, losses and arguments
    are mmdet's.
    """

    _refining = False

    def _refine_roi(self, *args: Any, **kwargs: Any) -> tuple:
        """mmdet's, with stages that put out probabilities; their mean as logits again."""
        self._refining = True
        try:
            rois, scores, boxes = super()._refine_roi(*args, **kwargs)
        finally:
            self._refining = False
        tiny = torch.finfo(torch.float32).tiny
        # reason: the softmax that the last stage's head applies undoes this logarithm
        return rois, [score.clamp_min(tiny).log() for score in scores], boxes

    def _bbox_forward(self, stage: int, x: tuple[Tensor], rois: Tensor) -> dict[str, Tensor]:
        """mmdet's; while refining, ``cls_score`` is (N, classes + 1) probabilities."""
        results = super()._bbox_forward(stage, x, rois)
        if self._refining:
            results["cls_score"] = results["cls_score"].float().softmax(-1)
        return results
