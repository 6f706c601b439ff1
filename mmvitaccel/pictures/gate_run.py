"""Runs an eventful model on a video: error relative to dense, and tokens that pass the gates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor, nn

from mmvitaccel.adapters.eventful.apply import EventfulHandle
from mmvitaccel.errors import UserError, running
from mmvitaccel.pictures.frame_pipeline import FramePipeline
from mmvitaccel.pictures.token_share import token_share


@dataclass(frozen=True)
class GateFrame:
    """One frame of a video.

    Attributes:
        image: (height, width, 3) uint8 BGR, as the model's pipeline resized it.
        error: Relative L2 difference of the features to the dense model's.
        first: Whether it is the first frame after a reset.
        passed: For each of the three gates, the mean number of passing tokens over blocks.
        patch: Side of a token in pixels.
        share: (H, W) on the token grid: share of all gates that each token passed.
    """

    image: np.ndarray
    error: float
    first: bool
    passed: tuple[float, float, float]
    patch: int
    share: np.ndarray


class GateRun:
    """Runs the transformer of a detector on the frames of a video, eventful and dense.

    Args:
        cfg: Config of the detector, whose test pipeline prepares the frames.
        model: The config's model, with Eventful.

    Raises:
        UserError: The model is not eventful, or the pipeline cannot be built.
    """

    def __init__(self, cfg: Config, model: nn.Module) -> None:
        try:
            self.handle = EventfulHandle(model)
        except ValueError as error:
            raise UserError(f"{error} Give an eventful config, or --k.") from error
        model.eval()
        self.model = model
        self.prepare = FramePipeline(cfg)

    def follow(self, frames: Iterator[np.ndarray]) -> Iterator[GateFrame]:
        """Run frames (height, width, 3) uint8 BGR one by one, as one stream."""
        self.handle.reset()
        for frame_id, frame in enumerate(frames):
            packed = self.prepare(frame, frame_id)
            image = packed["inputs"].permute(1, 2, 0).numpy()
            data = dict(inputs=[packed["inputs"]], data_samples=[packed["data_samples"]])
            with running(self.model, "the video"), torch.no_grad():
                inputs = self.model.data_preprocessor(data, False)["inputs"]
                with self.handle.stream([None]):
                    dense = _features(self.handle.model(inputs))
                with self.handle.stream("video", frame_id):
                    features = _features(self.handle.model(inputs))
            error = float((features - dense).norm() / dense.norm())
            yield self._frame(image, error, inputs.shape[2:])

    def _frame(self, image: np.ndarray, error: float, padded: torch.Size) -> GateFrame:
        (info,), (tokens,) = self.handle.frames, self.handle.passed_tokens()
        passed = tokens.sum((2, 3)).float().mean(0).tolist()
        patch, seen = token_share(self.handle, tokens, padded, image.shape)
        return GateFrame(image, error, info.first, tuple(passed), patch, seen)


def _features(out: Any) -> Tensor:
    """All outputs of a transformer as one vector."""
    if isinstance(out, Tensor):
        return out.flatten()
    return torch.cat([_features(part) for part in out])
