"""Frames of a video as a detector's test pipeline prepares them."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope

from mmvitaccel.errors import UserError, building
from mmvitaccel.registry import type_name
from mmvitaccel.runner.config import package_of


class FramePipeline:
    """The test pipeline of a config without its loading.

    Args:
        cfg: The detector's.

    Raises:
        UserError: There is no test pipeline, it is a recognizer's, or it cannot be built.
    """

    def __init__(self, cfg: Config) -> None:
        scope = cfg.get("default_scope") or "mmdet"
        dataset = (cfg.get("test_dataloader") or {}).get("dataset") or {}
        while "pipeline" not in dataset and isinstance(dataset.get("dataset"), dict):
            dataset = dataset["dataset"]  # of a wrapper, such as one that repeats
        if "pipeline" not in dataset:
            raise UserError(
                "the config has no test_dataloader.dataset.pipeline, which says how a frame is "
                "prepared; give a config that can be tested."
            )
        if package_of(cfg) == "mmaction":
            raise UserError(
                "the config's test pipeline makes clips, as a recognizer takes them, and no single "
                "frames; give a detector's or a classifier's config."
            )
        with building("the test pipeline"), DefaultScope.overwrite_default_scope(scope):
            steps = [s for s in dataset["pipeline"] if not type_name(s).startswith("Load")]
            self._steps = Compose(steps)

    def __call__(self, frame: np.ndarray, frame_id: int) -> dict[str, Any]:
        """``inputs`` and ``data_samples`` of a frame (height, width, 3) uint8 BGR of one video."""
        shape = frame.shape[:2]
        return self._steps(
            dict(
                img=frame,
                img_id=frame_id,
                img_path=None,
                img_shape=shape,
                ori_shape=shape,
                video_id=0,
                frame_id=frame_id,
            )
        )
