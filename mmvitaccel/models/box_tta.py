"""Test-time augmentation of detectors with masks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmdet.models.test_time_augs import DetTTAModel
from mmdet.structures import DetDataSample
from torch import nn

from mmvitaccel.arguments import config
from mmvitaccel.registry import MODELS


@MODELS.register_module()
class BoxTTAModel(DetTTAModel):
    """mmdet's ``DetTTAModel`` for detectors with masks: merges the boxes and predicts no masks.

    mmdet's class fails for such a detector at the first image.

    Args:
        tta_cfg: ``nms`` and ``max_per_img``, as for mmdet's class.
        **kwargs: As for mmdet's class; ``module`` is the detector or its config.

    Raises:
        ValueError: If ``tta_cfg`` is not a dict.
    """

    def __init__(self, tta_cfg: dict | None = None, **kwargs: Any) -> None:
        tta_cfg = config("BoxTTAModel", "tta_cfg", tta_cfg, what="a dict", or_none=True)
        super().__init__(tta_cfg, **kwargs)

    def test_step(self, data: Any) -> list[DetDataSample]:
        """Predict every view, without masks, and merge the boxes.

        Args:
            data: A batch of a test-time augmentation dataloader.

        Returns:
            One sample for each image, whose ``pred_instances`` have ``bboxes`` (N, 4) in pixels,
            ``scores`` (N,) and ``labels`` (N,).
        """
        with _without_mask_head(self.module):
            return super().test_step(data)

    def _merge_single_sample(self, data_samples: list[DetDataSample]) -> DetDataSample:
        """Merge the boxes of the views of one image."""
        for sample in data_samples:
            # one-stage detectors compute masks in the bounding box head
            sample.pred_instances.pop("masks", None)
        return super()._merge_single_sample(data_samples)


@contextmanager
def _without_mask_head(detector: nn.Module) -> Iterator[None]:
    """Disable the masks of a two-stage detector."""
    head = getattr(detector, "roi_head", None)
    masks = getattr(head, "mask_head", None)
    if masks is None:
        yield
        return
    head.mask_head = None
    try:
        yield
    finally:
        head.mask_head = masks
