"""Frames of a video file or a camera one at a time, and the step of a clip that they make."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import TRANSFORMS, init_default_scope

from mmvitaccel.errors import UserError, building

CAMERA = "camera"


class FrameSource:
    """A video file or a camera; iterating yields (H, W, 3) uint8 RGB, decoded one by one.

    Args:
        source: Path of a file, or ``camera``, or ``camera:1`` for the second one.

    Attributes:
        fps: Frames a second, as the file or the driver says; 0 if it does not.
        announced: Frames that the file says it has; 0 of a camera.
        given: Frames yielded so far.

    Raises:
        UserError: There is no such file, or it cannot be opened.
    """

    def __init__(self, source: str) -> None:
        self.name = source
        kind, _, number = source.partition(":")
        camera = kind == CAMERA and (number.isdigit() or not number)
        if not camera and not Path(source).is_file():
            raise UserError(
                f"the video {source} does not exist; give a file, or {CAMERA} for a camera."
            )
        self._capture = cv2.VideoCapture(int(number or 0) if camera else source)
        if not self._capture.isOpened():
            what = "is no camera that can be opened" if camera else "cannot be opened as a video"
            raise UserError(f"{source} {what}; check it with another program.")
        self.fps = float(self._capture.get(cv2.CAP_PROP_FPS))
        self.announced = 0 if camera else int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.given = 0

    def __iter__(self) -> Iterator[np.ndarray]:
        try:
            while True:
                success, frame = self._capture.read()
                if not success:
                    return
                self.given += 1
                yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        finally:
            self._capture.release()

    def complaint(self) -> str | None:
        """What is to be said of how the frames ended; None if there is nothing."""
        if self.given == 0:
            return f"{self.name} has no frame that can be decoded; it is damaged, get it again."
        # reason: some containers announce a frame or two that no player shows
        if self.announced - self.given > 2:
            return (
                f"{self.name} ended at frame {self.given} of {self.announced}: it is damaged or "
                "incomplete; the labels are of the frames before."
            )
        return None


def first_frames(video: str, size: int, count: int) -> list[torch.Tensor]:
    """The first frames of a video as the Eventful paper's detectors take them.

    The long edge becomes ``size`` pixels, or less where the short one would be above
    ``640 * size / 1024``; padded at the bottom and right.

    Returns:
        (1, 3, size, size) each, RGB, about -2 to 2.

    Raises:
        UserError: The video cannot be read, or has fewer frames.
    """
    frames = []
    for frame in islice(FrameSource(video), count):
        height, width = frame.shape[:2]
        scale = min(640 * size / 1024 / min(height, width), size / max(height, width))
        resized = cv2.resize(frame, (round(width * scale), round(height * scale)))
        x = (torch.from_numpy(resized).float() - 116) / 58
        padding = (0, 0, 0, size - x.shape[1], 0, size - x.shape[0])
        frames.append(torch.nn.functional.pad(x, padding).permute(2, 0, 1)[None].contiguous())
    if len(frames) < count:
        raise UserError(
            f"{video} has {len(frames)} frames and {count} are needed; set --frames lower."
        )
    return frames


@dataclass(frozen=True)
class ClipSettings:
    """How a config's test turns a video into clips.

    Attributes:
        clip_len: Frames of a clip.
        frame_interval: Every how many frames one is taken.
        target_fps: Frame rate that the interval is of; None for the video's own.
        transforms: What happens to each frame between decoding and packing.
    """

    clip_len: int
    frame_interval: int
    target_fps: float | None
    transforms: tuple[Any, ...]

    @classmethod
    def of(cls, cfg: Config) -> ClipSettings:
        """Read the pipeline of the validation, or else of the test: one view of a clip.

        Raises:
            UserError: It has no ``SampleFrames``, or a step that cannot be built.
        """
        loader = cfg.get("val_dataloader") or cfg.get("test_dataloader") or {}
        pipeline = list((loader.get("dataset") or {}).get("pipeline") or [])
        kinds = [str(step["type"]).rpartition(".")[2] for step in pipeline]
        if "SampleFrames" not in kinds or "FormatShape" not in kinds:
            raise UserError(
                "the config's validation pipeline has no SampleFrames and FormatShape, so that "
                "frames cannot be prepared one by one; give a recognizer's config."
            )
        sample = pipeline[kinds.index("SampleFrames")]
        decoded = max(i for i, kind in enumerate(kinds) if "Decode" in kind)
        init_default_scope(cfg.get("default_scope") or "mmaction")
        with building("the validation pipeline"):
            steps = pipeline[decoded + 1 : kinds.index("FormatShape")]
            transforms = tuple(TRANSFORMS.build(step) for step in steps)
        return cls(
            sample["clip_len"],
            sample.get("frame_interval", 1),
            sample.get("target_fps"),
            transforms,
        )


class StepMaker:
    """Collects frames into steps of a clip; keeps no more than one step's.

    Args:
        settings: Of the clips.
        frames: Frames of a step, the tubelets' length.
        fps: Of the frames that come, for ``target_fps``.
    """

    def __init__(self, settings: ClipSettings, frames: int, fps: float) -> None:
        self.settings = settings
        self.frames = frames
        scale = fps / settings.target_fps if settings.target_fps and fps else 1.0
        self.stride = max(settings.frame_interval * scale, 1.0)
        self.seen = self.taken = 0
        self._waiting: list[np.ndarray] = []

    def add(self, frame: np.ndarray) -> torch.Tensor | None:
        """Take a frame (H, W, 3) uint8 RGB if it is one of a clip's.

        Returns:
            With the last frame of a step, (1, 3, frames, H', W') uint8: one view, as mmaction2's
            data preprocessors take it; None before.

        Raises:
            UserError: The pipeline makes more of a frame than one picture.
        """
        wanted = self.seen >= round(self.taken * self.stride)
        self.seen += 1
        if not wanted:
            return None
        self.taken += 1
        results: dict[str, Any] = {
            "imgs": [frame],
            "img_shape": frame.shape[:2],
            "original_shape": frame.shape[:2],
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
