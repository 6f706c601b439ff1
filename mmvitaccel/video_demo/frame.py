"""A frame of the demo: on its way through a model, and what is known of it afterwards."""

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
    """A frame of the demo.

    Attributes:
        number: Of the frame, from 0.
        seconds: In the video; None if not known.
        detections: Instances of OpenMMLab with a score of at least the least, boxes in the pixels
            of the video: ``bboxes``, ``labels``, ``scores``, with tracking ``instances_id``.
        dense_detections: Those of the model without Eventful; None where it is not drawn beside.
        milliseconds: Of the detector, its preprocessing included; None of a frame that a budget
            counted.
        macs: Its multiply-adds as they were counted for its k, the guard of ``exact`` attention
            may add a few percent; None where they are not known.
        dense_milliseconds: Of the model without Eventful, the median of its last three runs; it
            runs three times on the first frame, and once on every 50th, or on every frame where it
            is drawn beside; None where nothing is drawn.
        dense_macs: Its multiply-adds.
        k: Tokens let through; None of another policy.
        target: The budget; None without.
        missed: Whether the budget cannot be held now.
        whole: Whether the frame was computed whole.
        image: (height, width, 3) uint8 RGB, everything drawn on it; None where nothing is drawn.
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
        """What a table says of it."""
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
    """A frame of a video on its way through a model.

    Attributes:
        frame: The frame.
        number: Of it, from 0.
        image: (height, width, 3) uint8 BGR.
        resized: Its height and width as the pipeline makes it.
        padded: Those of the model's input.
    """

    def __init__(self, prepare: FramePipeline, frame: Frame, number: int) -> None:
        self.frame, self.number = frame, number
        self.image = np.ascontiguousarray(frame.image[..., ::-1])
        self._packed = prepare(self.image, number)
        self.resized = tuple(self._packed["inputs"].shape[-2:])
        self.padded = self.resized

    @torch.no_grad()
    def run(self, model: nn.Module, frame_id: int | None) -> Any:
        """The data sample that a model gives for the frame, with a number in its one stream."""
        sample = copy.deepcopy(self._packed["data_samples"])
        if frame_id is not None:
            sample.set_metainfo(dict(video_id=0, frame_id=frame_id))
        found = model.test_step(dict(inputs=[self._packed["inputs"]], data_samples=[sample]))[0]
        self.padded = tuple(found.metainfo.get("batch_input_shape", self.resized))
        return found
