"""Cascade R-CNN that averages the scores of its stages as detectron2 does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.roi_heads import CascadeRoIHead as MMDetCascadeRoIHead
from torch import Tensor

from mmvitaccel.arguments import numbers, refuse, whole_number
from mmvitaccel.registry import MODELS


@MODELS.register_module()
class CascadeRoIHead(MMDetCascadeRoIHead):
    """mmdet's ``CascadeRoIHead``, with the stages' scores averaged as in detectron2.

    In predictions, mmdet averages the logits of the stages, detectron2 their probabilities. Weights
    released for detectron2 need the latter to reach their published accuracy. Parameters, losses
    and arguments are those of mmdet.

    Args:
        num_stages: Number of stages.
        stage_loss_weights: Weight of each stage's losses.
        **kwargs: As for mmdet's class.

    Raises:
        ValueError: If there are not as many weights as stages, or one is not a number.
    """

    _refining = False

    def __init__(self, num_stages: int, stage_loss_weights: Sequence[float], **kwargs: Any) -> None:
        owner = "CascadeRoIHead"
        num_stages = whole_number(owner, "num_stages", num_stages, least=1)
        weights = numbers(owner, "stage_loss_weights", stage_loss_weights, least=0)
        if len(weights) != num_stages:
            why = f"num_stages={num_stages}"
            refuse(owner, "stage_loss_weights", weights, "one number for each stage", why=why)
        super().__init__(num_stages, list(weights), **kwargs)

    def _refine_roi(self, *args: Any, **kwargs: Any) -> tuple:
        """Refine boxes with stages that return probabilities; returns their mean as logits."""
        self._refining = True
        try:
            rois, scores, boxes = super()._refine_roi(*args, **kwargs)
        finally:
            self._refining = False
        tiny = torch.finfo(torch.float32).tiny
        # The softmax of the last stage's head reverses this logarithm
        return rois, [score.clamp_min(tiny).log() for score in scores], boxes

    def _bbox_forward(self, stage: int, x: tuple[Tensor], rois: Tensor) -> dict[str, Tensor]:
        """Run one stage; in refinement, ``cls_score`` (N, classes + 1) has probabilities."""
        results = super()._bbox_forward(stage, x, rois)
        if self._refining:
            results["cls_score"] = results["cls_score"].float().softmax(-1)
        return results
