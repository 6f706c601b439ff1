"""Random input in the format of a config's test pipeline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch
from mmengine.config import Config

from mmvitaccel.errors import UserError, building
from mmvitaccel.registry import type_name
from mmvitaccel.runner.config import package_of

_COARSEST_STRIDE = 32


@dataclass(frozen=True)
class Example:
    """One input of a model.

    Attributes:
        shape: Shape without batch and views: (C, H, W), or (C, T, H, W) for a recognizer.
        inputs: Input for ``model(inputs, ...)``, a batch of one.
        kwargs: Other arguments of the model's ``forward``.
        views: Number of such inputs per sample in the test pipeline (clips times crops).
    """

    shape: tuple[int, ...]
    inputs: torch.Tensor
    kwargs: dict[str, Any]
    views: int = 1


@building("config")
def make_example(cfg: Config, size: Sequence[int] | None) -> Example:
    """Make an input for the config's model.

    Args:
        cfg: The config; the kind of model follows from its package.
        size: (H, W) in pixels; by default that of the test pipeline. For detectors it is padded as
            by the data preprocessor.

    Raises:
        UserError: The size is invalid, or the pipeline does not define one.
    """
    if size is not None and min(size) < 1:
        raise UserError(f"--shape {_words(size)}: an image has at least 1 pixel; give H and W.")
    pipeline = _Pipeline(cfg)
    package = package_of(cfg)
    if package == "mmaction":
        return _clip(cfg, pipeline, size)
    height, width = size or pipeline.size()
    channels = input_channels(cfg)
    kwargs: dict[str, Any] = dict(mode="tensor")
    if package == "mmdet":
        height, width = _padded(cfg, height, width)
        kwargs["data_samples"] = [_detection_sample(height, width)]
    shape = (channels, height, width)
    return Example(shape, _noise(1, *shape), kwargs)


def moving_frames(example: Example, count: int) -> Iterator[torch.Tensor]:
    """Frames of a still picture over which a square of noise moves.

    Args:
        example: Its input is the first frame and the background.
        count: Number of frames.

    Yields:
        Inputs like the example's. The square's side is a quarter of the shorter one; it moves by
        a sixteenth of the width a frame, in the middle.
    """
    height, width = example.inputs.shape[-2:]
    side = max(min(height, width) // 4, 1)
    square = -example.inputs[..., :side, :side]
    top = (height - side) // 2
    yield example.inputs
    for index in range(1, count):
        left = index * max(width // 16, 1) % (width - side + 1)
        frame = example.inputs.clone()
        frame[..., top : top + side, left : left + side] = square
        yield frame


class _Pipeline:
    """Input size of the test pipeline."""

    def __init__(self, cfg: Config) -> None:
        dataset = (cfg.get("test_dataloader") or {}).get("dataset") or {}
        while "dataset" in dataset:
            dataset = dataset["dataset"]
        self.steps = [s for s in dataset.get("pipeline") or [] if isinstance(s, dict)]

    def last(self, *keys: str) -> Any:
        """The value of the last step with one of the keys."""
        found = [step[key] for step in self.steps for key in keys if step.get(key) is not None]
        return found[-1] if found else None

    def has(self, kind: str) -> bool:
        return any(type_name(step) == kind for step in self.steps)

    def size(self) -> tuple[int, int]:
        """(H, W) of the crop or else of the resized image."""
        crop = self.last("crop_size")
        if crop is not None:
            return (crop, crop) if isinstance(crop, int) else (crop[1], crop[0])
        scale = self.last("scale")
        if isinstance(scale, int):
            return scale, scale
        if isinstance(scale, (list, tuple)) and len(scale) == 2 and min(scale) > 0:
            return scale[1], scale[0]
        raise UserError("the config's test pipeline fixes no input size; give --shape H W.")


def _clip(cfg: Config, pipeline: _Pipeline, size: Sequence[int] | None) -> Example:
    """A recognizer's input: (1, views, C, T, H, W), (1, frames, C, H, W) or a spectrogram."""
    layout = pipeline.last("input_format") or "NCTHW"
    clips = (pipeline.last("num_clips") or 1) * (pipeline.last("num_sample_positions") or 1)
    frames = pipeline.last("clip_len") or 1
    crops = 3 if pipeline.has("ThreeCrop") else 10 if pipeline.has("TenCrop") else 1
    kwargs = dict(mode="tensor", stage="head")
    if layout == "NCTF":
        if size is None:
            raise UserError("a spectrogram's size is not in the config; give --shape FRAMES BINS.")
        return Example((1, *size), _noise(1, 1, 1, *size), kwargs, clips)
    height, width = size or pipeline.size()
    channels = input_channels(cfg)
    if layout == "NCTHW":
        shape = (channels, frames, height, width)
        return Example(shape, _noise(1, 1, *shape), kwargs, clips * crops)
    if layout == "NCHW":
        shape = (channels, clips * frames, height, width)
        return Example(shape, _noise(1, clips * frames, channels, height, width), kwargs, crops)
    raise UserError(
        f"the config's FormatShape makes {layout!r}, for which no input can be made up; "
        "NCTHW, NCHW and NCTF can be counted."
    )


def input_channels(cfg: Config) -> int:
    """The model's input channels from the config, or from the length of the mean."""
    preprocessor = cfg.model.get("data_preprocessor") or cfg.get("data_preprocessor") or {}
    return backbone_channels(cfg) or len(preprocessor.get("mean") or (0, 0, 0))


def backbone_channels(cfg: Config) -> int | None:
    """``in_channels`` of the backbone, or of a wrapped one; None if it is not set."""
    backbone = cfg.model.get("backbone") or {}
    while isinstance(backbone.get("backbone"), dict):
        backbone = backbone["backbone"]
    return backbone.get("in_channels")


def _padded(cfg: Config, height: int, width: int) -> tuple[int, int]:
    preprocessor = cfg.model.get("data_preprocessor") or {}
    step = preprocessor.get("pad_size_divisor") or 1
    # A step may pad every image to a square
    least = min(step, _COARSEST_STRIDE)
    if min(height, width) < least:
        raise UserError(
            f"--shape {height} {width}: too small, the model's images are padded to steps of "
            f"{step} pixels; give at least {least} {least}."
        )
    return ceil(height / step) * step, ceil(width / step) * step


def _detection_sample(height: int, width: int) -> Any:
    """The data sample of an image for a detector."""
    # Imported here, because models of other packages do not need mmdet
    from mmdet.structures import DetDataSample

    size = (height, width)
    return DetDataSample(
        metainfo=dict(
            img_id=0,
            img_shape=size,
            ori_shape=size,
            pad_shape=size,
            batch_input_shape=size,
            scale_factor=(1.0, 1.0),
        )
    )


def _noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _words(size: Sequence[int]) -> str:
    return " ".join(str(n) for n in size)
