"""Runs a config's model with ToMe on one image or clip and draws the merged tokens."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor, nn

from mmvitaccel.adapters.attach import link
from mmvitaccel.adapters.tome.apply import apply_tome
from mmvitaccel.adapters.tome.handle import ToMeHandle
from mmvitaccel.adapters.tome.run import METHOD
from mmvitaccel.errors import UserError, building, running
from mmvitaccel.models.wrappers.target import find_target
from mmvitaccel.pictures.framing import Framing, pretrained_cfg
from mmvitaccel.pictures.tokens import patch_grid, picture, token_maps
from mmvitaccel.runner.attached_hooks import attach_hooks, take_off
from mmvitaccel.runner.random_input import make_example
from mmvitaccel.video_reader import frame_seconds, open_video
from mmvitaccel.video_reader.pictures import SUFFIXES
from mmvitaccel.video_reader.source import is_pattern


def timm_config(name: str, pretrained: bool) -> Config:
    """A config of a timm model, at its default size."""
    with building(f"--timm {name}"):
        import timm

        size = timm.get_pretrained_cfg(name).input_size[1:] if timm.is_model(name) else (224, 224)
    # What happens to a picture before is timm's own; see Framing
    pipeline = [dict(type="CenterCrop", crop_size=tuple(reversed(size)))]
    model = dict(type="mmvitaccel.TIMMBackbone", model_name=name, pretrained=pretrained)
    return Config(dict(model=model, test_dataloader=dict(dataset=dict(pipeline=pipeline))))


def draw_merging(
    cfg: Config,
    model: nn.Module,
    source: str,
    r: Any = None,
    blocks: Iterable[int] | None = None,
    target: str | None = None,
) -> np.ndarray:
    """Draw the merged tokens of an image or a clip.

    Args:
        cfg: Config of the model, which defines the input size and the clip length.
        model: The config's model with weights; ToMe is removed afterwards.
        source: An image or video file.
        r: Schedule; by default that of the config's ToMe, else 8.
        blocks: Blocks to draw; by default six, spread evenly, with the last.
        target: Path of the transformer in the model.

    Returns:
        The picture, (height, width, 3) uint8 RGB.

    Raises:
        UserError: The file or the model is not supported.
    """
    example = make_example(cfg, None)
    frames = read_frames(source, example.shape, Framing.of(cfg, model))
    with building("ToMe"):
        handle = _attach(cfg, model, r, target)
    pixels = torch.from_numpy(_for_model(frames, model, len(example.shape) == 4))
    inputs = pixels.reshape(example.inputs.shape)
    kwargs = example.kwargs if hasattr(model, "data_preprocessor") else {}
    with running(model, source), torch.no_grad():
        model.eval()
        model(inputs, **kwargs)
    maps = token_maps(handle, patch_grid(handle.model, example.shape))
    chosen = _spread(len(maps)) if blocks is None else list(blocks)
    wrong = [block for block in chosen if not 0 <= block < len(maps)]
    if wrong:
        raise UserError(f"--blocks {wrong[0]}: the model has blocks 0 to {len(maps) - 1}.")
    tokens = handle.info.tokens
    handle.remove()
    return picture(frames, {block: maps[block] for block in chosen}, tokens)


def read_frames(source: str, shape: tuple[int, ...], framing: Framing) -> np.ndarray:
    """An image, or frames spread over a video, as (F, height, width, 3) uint8 RGB.

    Args:
        source: An image, or what :func:`~mmvitaccel.video_reader.open_video` takes.
        shape: (C, H, W), or (C, T, H, W) of a clip; an image for a clip stands still.
        framing: How a picture becomes one of (H, W).

    Raises:
        UserError: The file cannot be read.
    """
    count = shape[1] if len(shape) == 4 else 1
    name = Path(source).name
    if Path(name).suffix.lower() in SUFFIXES and not is_pattern(name):
        image = cv2.imread(source)
        if image is None:
            raise UserError(f"the image {source} does not exist or cannot be read; give another.")
        frames = [cv2.cvtColor(image, cv2.COLOR_BGR2RGB)] * count
    else:
        frames = _spread_frames(source, count)
        frames += [frames[-1]] * (count - len(frames))
    return np.stack([framing.apply(frame, shape[-2:]) for frame in frames])


def _spread_frames(source: str, count: int) -> list[np.ndarray]:
    """Frames spread over a whole video; the first frames of a live source."""
    video = open_video(source)
    if count > 1 and not video.live:
        length = video.length or len(frame_seconds(source))
        step = max(length // count, 1)
        chosen = video.select(range(0, step * count, step))
    else:
        chosen = islice(video, count)
    with video:
        frames = [frame.image for frame in chosen]
    if not frames:
        raise UserError(" ".join(video.notes()) or f"{source} has no frames; give another.")
    return frames


def _attach(cfg: Config, model: nn.Module, r: Any, target: str | None) -> ToMeHandle:
    """ToMe with its sources traced, with what the config or the command line says of r."""
    handles = attach_hooks(cfg, model)
    transformer = find_target(model, target)[1]
    found = link(transformer, METHOD)
    options = {} if found is None else found.state.options._asdict()
    if options.get("reduction") == "prune":
        del options["matching"]  # which chooses nothing there
    schedule = r if r is not None else 8 if found is None else found.state.r
    take_off(model, handles)
    return apply_tome(transformer, schedule, trace_source=True, **options)


def _for_model(frames: np.ndarray, model: nn.Module, clip: bool) -> np.ndarray:
    """Normalise as the model's data preprocessor does: (C, H, W), or (C, T, H, W) of a clip."""
    preprocessor = getattr(model, "data_preprocessor", None)
    mean, std = (_statistics(model, name) for name in ("mean", "std"))
    # Detectors read images as BGR and turn them; video is decoded to RGB
    if (
        preprocessor is not None
        and not clip
        and not getattr(preprocessor, "_channel_conversion", False)
    ):
        frames = frames[..., ::-1]
    pixels = (frames.astype(np.float32) - mean) / std
    return np.ascontiguousarray(
        pixels.transpose(3, 0, 1, 2) if clip else pixels[0].transpose(2, 0, 1)
    )


def _statistics(model: nn.Module, name: str) -> np.ndarray:
    """Mean or deviation of the channels: the preprocessor's, or those that timm has of a model.

    A model with neither has no known ones: 127.5, as most of timm's ViTs have.
    """
    preprocessor = getattr(model, "data_preprocessor", None)
    value = getattr(preprocessor, name, None)
    if isinstance(value, Tensor):
        return value.flatten().numpy()
    if preprocessor is not None:
        return np.full(3, float(name == "std"), np.float32)
    of_timm = pretrained_cfg(model)
    return 255 * np.asarray(of_timm[name] if of_timm else (0.5, 0.5, 0.5), np.float32)


def _spread(count: int) -> list[int]:
    return sorted({round((i + 1) * count / 6) - 1 for i in range(6)} - {-1})
