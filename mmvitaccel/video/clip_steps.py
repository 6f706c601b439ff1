"""Clip settings of a config's test, and the steps of clips from single frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import TRANSFORMS, init_default_scope

from mmvitaccel.errors import UserError, building
from mmvitaccel.registry import type_name
from mmvitaccel.video_reader.timing import Frame


@dataclass(frozen=True)
class ClipSettings:
    """Clip settings of a config's test.

    Attributes:
        clip_len: Frames of a clip.
        frame_interval: Interval between used frames.
        target_fps: Frame rate of the interval; None for that of the video.
        transforms: Transforms of each frame between decoding and packing.
    """

    clip_len: int
    frame_interval: int
    target_fps: float | None
    transforms: tuple[Any, ...]

    @classmethod
    @building("the validation pipeline")
    def of(cls, cfg: Config) -> ClipSettings:
        """Read the pipeline of the validation, or else of the test: one view of a clip.

        Raises:
            UserError: It has no ``SampleFrames``, or a step that cannot be built.
        """
        loader = cfg.get("val_dataloader") or cfg.get("test_dataloader") or {}
        pipeline = list((loader.get("dataset") or {}).get("pipeline") or [])
        kinds = [type_name(step) for step in pipeline]
        if "SampleFrames" not in kinds or "FormatShape" not in kinds:
            raise UserError(
                "the config's validation pipeline has no SampleFrames and FormatShape, so that "
                "frames cannot be prepared one by one; give a recognizer's config."
            )
        sample = pipeline[kinds.index("SampleFrames")]
        decoded = max(i for i, kind in enumerate(kinds) if "Decode" in kind)
        init_default_scope(cfg.get("default_scope") or "mmaction")
        steps = pipeline[decoded + 1 : kinds.index("FormatShape")]
        transforms = tuple(TRANSFORMS.build(step) for step in steps)
        return cls(
            sample["clip_len"],
            sample.get("frame_interval", 1),
            sample.get("target_fps"),
            transforms,
        )


class StepMaker:
    """Collects frames into steps of a clip; stores at most one step.

    Args:
        settings: Settings of the clips.
        frames: Number of frames of a step, the length of tubelets.
        fps: Frame rate of the input; None if unknown.
    """

    def __init__(self, settings: ClipSettings, frames: int, fps: float | None) -> None:
        self.settings = settings
        self.frames = frames
        self.fps = fps
        target = settings.target_fps
        # Without a rate, a frame interval counts in frames of the one that is wanted
        scale = fps / target if fps and target else 1.0
        self.stride = max(settings.frame_interval * scale, 1.0)
        self._next: float | None = None
        self._waiting: list[np.ndarray] = []

    def add(self, frame: Frame) -> torch.Tensor | None:
        """Add a frame if it belongs to the clip.

        Returns:
            With the last frame of a step, (1, 3, frames, H', W') uint8: one view, as mmaction2's
            data preprocessors take it; None before.

        Raises:
            UserError: The pipeline returns more than one picture per frame.
        """
        if not self.takes(frame):
            return None
        image = frame.image
        results: dict[str, Any] = {
            "imgs": [image],
            "img_shape": image.shape[:2],
            "original_shape": image.shape[:2],
            "modality": "RGB",
            "num_clips": 1,
            "clip_len": 1,
        }
        for transform in self.settings.transforms:
            results = transform(results)
        if len(results["imgs"]) != 1:
            raise UserError(
                f"the validation pipeline makes {len(results['imgs'])} pictures of a frame; give a "
                "config whose val_dataloader takes one view (CenterCrop)."
            )
        self._waiting.append(np.asarray(results["imgs"][0]))
        if len(self._waiting) < self.frames:
            return None
        step = torch.from_numpy(np.stack(self._waiting))  # (frames, H', W', 3)
        self._waiting.clear()
        return step.permute(3, 0, 1, 2)[None].contiguous()

    def takes(self, frame: Frame) -> bool:
        """Whether this frame is used, which is then recorded.

        Decided by time stamp if the config has a frame rate, else by frame number.
        """
        place = self._place(frame)
        if self._next is None:
            self._next = place
        if place < round(self._next):
            return False
        self._next += self.stride
        if self._next < place:  # frames were dropped: continue from this one
            self._next = place + self.stride
        return True

    def _place(self, frame: Frame) -> float:
        """Place of a frame in the video, in frames of its rate."""
        rate = self.fps or self.settings.target_fps
        if self.settings.target_fps and rate and frame.seconds is not None:
            return round(frame.seconds * rate)
        return frame.index
