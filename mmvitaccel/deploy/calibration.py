"""Calibration images for int8: from the training set, with the preprocessing of the test."""

from __future__ import annotations

from collections.abc import Iterator

from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, init_default_scope
from torch import Tensor

from mmvitaccel.errors import UserError, building
from mmvitaccel.runner.tested_data import training_data


def calibration_images(cfg: Config, count: int) -> Iterator[Tensor]:
    """Images (1, C, H, W), normalised and padded, spread over the training set.

    Args:
        cfg: Config of a detector or classifier.
        count: Largest number of images.

    Raises:
        UserError: The training data cannot be built, or its samples are not images.
    """
    init_default_scope(cfg.get("default_scope") or "mmengine")
    with building("train_dataloader.dataset, through the test's pipeline"):
        dataset = DATASETS.build(training_data(cfg))
        given = cfg.model.get("data_preprocessor") or cfg.get("data_preprocessor")
        prepare = MODELS.build(given)
        step = max(len(dataset) // count, 1)
        for index in range(0, min(step * count, len(dataset)), step):
            images = prepare(pseudo_collate([dataset[index]]), False)["inputs"]
            if images.dim() != 4:
                raise UserError(
                    f"int8 is calibrated with images (B, C, H, W), and the test's pipeline makes "
                    f"{tuple(images.shape)}; leave --int8 out."
                )
            yield images
