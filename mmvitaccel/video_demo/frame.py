"""A frame of the demo: its run through a model, and its result."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from mmvitaccel.budget.target import Target
from mmvitaccel.pictures.frame_pipeline import FramePipeline
from mmvitaccel.video_reader import Frame


@dataclass
class DemoFrame:
    """The result of a frame.

    Attributes:
        number: Number of the frame, from 0.
        seconds: Its time in the video; None if unknown.
        detections: mmengine instances of at least the least score, boxes in pixels of the video:
            ``bboxes``, ``labels``, ``scores``, and with tracking ``instances_id``.
        dense_detections: Detections of the dense model; None if it is not drawn beside.
        milliseconds: Time of the detector, with preprocessing; None for a frame whose multiply-adds
            a budget counted.
        macs: Multiply-adds as counted for its k, to which the guard of ``exact`` attention may add
            a few percent; None if unknown.
        dense_milliseconds: Time of the dense model, the median of its last three runs. It runs
            three times on the first frame and once on every 50th, or on every frame if it is drawn
            beside; None if nothing is drawn.
        dense_macs: Multiply-adds of the dense model.
        k: Tokens that passed; None for a policy without k.
        target: The budget; None without one.
        missed: Whether the budget cannot be held now.
        whole: Whether the frame was computed whole.
        image: (height, width, 3) uint8 RGB with everything drawn; None if nothing is drawn.
    """

    number: int
    seconds: float | None
    detections: Any
    dense_detections: Any
    milliseconds: float | None
    macs: float | None
    dense_milliseconds: float | None
    dense_macs: int
    k: int | None
    target: Target | None
    missed: bool
    whole: bool
    image: np.ndarray | None = None

    def row(self) -> dict[str, Any]:
        """Its row of the table."""
        return {
            "frame": self.number,
            "seconds": self.seconds,
            "budget": "" if self.target is None else self.target.short,
            "k": self.k,
            "whole": int(self.whole),
            "milliseconds": self.milliseconds,
            "macs": self.macs,
            "dense_milliseconds": self.dense_milliseconds,
            "dense_macs": self.dense_macs,
            "missed": int(self.missed),
            "detections": len(self.detections),
        }


class Step:
    """A frame of a video, prepared for the model.

    Attributes:
        frame: The frame.
        number: Number of the frame, from 0.
        image: (height, width, 3) uint8 BGR.
        resized: Height and width after the pipeline.
        padded: Height and width of the model's input.
    """

    def __init__(self, prepare: FramePipeline, frame: Frame, number: int) -> None:
        self.frame, self.number = frame, number
        self.image = np.ascontiguousarray(frame.image[..., ::-1])
        self._packed = prepare(self.image, number)
        self.resized = tuple(self._packed["inputs"].shape[-2:])
        self.padded = self.resized

    @torch.no_grad()
    def run(self, model: nn.Module, frame_id: int | None) -> Any:
        """Run a model on the frame; ``frame_id`` numbers it in the stream, None names no stream."""
        sample = copy.deepcopy(self._packed["data_samples"])
        if frame_id is not None:
            sample.set_metainfo(dict(video_id=0, frame_id=frame_id))
        found = model.test_step(dict(inputs=[self._packed["inputs"]], data_samples=[sample]))[0]
        self.padded = tuple(found.metainfo.get("batch_input_shape", self.resized))
        return found
