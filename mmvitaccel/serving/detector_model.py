"""Serves an mmdet detector, from pictures to boxes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.device import get_device
from torch import Tensor, nn

from mmvitaccel.adapters.eventful.detector import EventfulDetectorHandle
from mmvitaccel.core.eventful.gates.shared import SharedTopK
from mmvitaccel.errors import UserError, building, one_line
from mmvitaccel.models.wrappers.eventful import attach_eventful
from mmvitaccel.pictures.frame_pipeline import FramePipeline
from mmvitaccel.runner.attached_hooks import take_off
from mmvitaccel.runner.checkpoint import check_checkpoint
from mmvitaccel.runner.config import load_config
from mmvitaccel.runner.session import build_model
from mmvitaccel.serving.answers import Refused
from mmvitaccel.serving.model import Prepared


class DetectorModel:
    """Serves the detector of a config, with Eventful on all parts that support it.

    Eventful or ToMe that the config itself attaches is removed: the service sets the policy and
    the number of streams.

    Args:
        config: Path of a detector's config, or the config itself; its test pipeline prepares the
            frames.
        checkpoint: Path of its weights; None leaves them random.
        k: Tokens that pass a gate, the mean over the streams of a batch; None computes every frame
            whole.
        floor: Of these, the tokens that are guaranteed to each stream.
        max_streams: Most streams that are remembered at a time.

    Attributes:
        model: The detector.
        handle: Its Eventful handle; None if every frame is computed whole.

    Raises:
        UserError: The config is not of a detector, or the checkpoint cannot be loaded.
    """

    def __init__(
        self,
        config: str | os.PathLike | Config,
        checkpoint: str | os.PathLike | None,
        k: int | None = None,
        floor: int = 0,
        max_streams: int = 16,
    ) -> None:
        cfg = config if isinstance(config, Config) else load_config(os.fspath(config), {})
        self.model: nn.Module = build_model(cfg)
        from mmdet.models.detectors.base import BaseDetector

        if not isinstance(self.model, BaseDetector):
            raise UserError(
                f"the config's model is a {type(self.model).__name__}, which finds no boxes in a "
                "frame; give a detector of mmdet."
            )
        self._pipeline = FramePipeline(cfg)
        if checkpoint is not None:
            check_checkpoint(self.model, _local(os.fspath(checkpoint)))
        take_off(self.model, ())
        self.handle: EventfulDetectorHandle | None = None
        if k is not None:
            with building("k"):
                policy = SharedTopK(k, floor)
                _, self.handle = attach_eventful(
                    self.model, policy, parts="all", max_streams=max_streams
                )
        self.model.to(get_device()).eval()

    def prepare(self, frame: np.ndarray | Tensor) -> Prepared:
        """See :class:`~mmvitaccel.serving.model.ServedModel`; accepts only pictures."""
        if not isinstance(frame, np.ndarray):
            raise Refused(
                "frame", f"a detector takes pictures, not a {type(frame).__name__}; send a picture."
            )
        try:
            packed = self._pipeline(np.ascontiguousarray(frame[..., ::-1]), 0)
        except Exception as error:  # A pipeline of any config's steps
            raise Refused(
                "frame",
                f"the test pipeline failed on a picture of {frame.shape[1]} x {frame.shape[0]} "
                f"pixels ({one_line(error)}); send another size.",
            ) from error
        return Prepared(tuple(packed["inputs"].shape), packed)

    def run(self, batch: Sequence[Prepared]) -> list[Any]:
        """Each frame's instances, on the CPU: ``bboxes`` in its pixels, ``scores``, ``labels``."""
        samples = [prepared.data["data_samples"] for prepared in batch]
        for sample in samples:
            # handle.stream names the streams
            sample.set_metainfo(dict(video_id=None))
        inputs = [prepared.data["inputs"] for prepared in batch]
        found = self.model.test_step(dict(inputs=inputs, data_samples=samples))
        return [sample.pred_instances.to("cpu") for sample in found]


def _local(path: str) -> str:
    """The path, if it is of a local file."""
    if "://" in path:
        raise UserError(f"checkpoint {path} is a URL; download it and give the file.")
    return path
