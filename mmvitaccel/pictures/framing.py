"""How a picture becomes one of the model's size: cut, padded or squeezed, as its config does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config
from PIL import Image
from torch import Tensor, nn

from mmvitaccel.errors import building
from mmvitaccel.registry import type_name
from mmvitaccel.runner.config import package_of

CROP, PAD, SQUEEZE = "crop", "pad", "squeeze"


def pretrained_cfg(model: nn.Module) -> dict[str, Any] | None:
    """What timm knows of a model's input (mean, std, crop); None of other models."""
    found = (getattr(module, "pretrained_cfg", None) for module in model.modules())
    return next((cfg for cfg in found if isinstance(cfg, Mapping) and "mean" in cfg), None)


@dataclass(frozen=True)
class Framing:
    """How a picture is brought to a size.

    Attributes:
        way: ``'crop'`` cuts out the middle, ``'pad'`` keeps the whole picture with zeros at the
            bottom and right, ``'squeeze'`` changes its proportions.
        short: Pixels of the shorter side before the cut; None for as few as fill the size.
        by_timm: timm's own transform of a PIL image to one of the size; None if it is not timm's.
    """

    way: str
    short: int | None = None
    by_timm: Callable[[Image.Image], Image.Image] | None = None

    @classmethod
    @building("the test pipeline")
    def of(cls, cfg: Config, model: nn.Module) -> Framing:
        """As the config's test pipeline does it; as timm does for a timm model by itself.

        Args:
            cfg: The model's.
            model: Built from it.
        """
        of_timm = pretrained_cfg(model)
        if not hasattr(model, "data_preprocessor") and of_timm is not None:
            return cls(CROP, by_timm=_timm_transform(of_timm))
        steps = _steps(cfg)
        scales = [step["scale"] for step in steps if step.get("scale") is not None]
        if any(step.get("crop_size") is not None for step in steps):
            return cls(CROP, _short_side(scales[-1]) if scales else None)
        resizes = [step for step in steps if type_name(step) == "Resize"]
        # mmaction2's Resize keeps proportions unless told otherwise, mmcv's the reverse
        keeps = package_of(cfg) == "mmaction"
        if resizes and not resizes[-1].get("keep_ratio", keeps):
            return cls(SQUEEZE)
        return cls(PAD)

    def apply(self, image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Bring a picture (height, width, 3) uint8 to (H, W)."""
        if self.by_timm is not None:
            return np.asarray(self.by_timm(Image.fromarray(image)))
        if self.way == SQUEEZE:
            return _resize(image, size)
        ratios = [wanted / side for wanted, side in zip(size, image.shape)]
        if self.way == PAD:
            fitted = _scaled(image, min(ratios))
            missing = [(0, wanted - side) for wanted, side in zip(size, fitted.shape)]
            return np.pad(fitted, (*missing, (0, 0)))
        short = 0.0 if self.short is None else self.short / min(image.shape[:2])
        covering = _scaled(image, max(short, *ratios))
        top, left = ((side - wanted) // 2 for side, wanted in zip(covering.shape, size))
        return covering[top : top + size[0], left : left + size[1]]


def _timm_transform(of_timm: dict[str, Any]) -> Callable[[Image.Image], Image.Image]:
    """The part of timm's evaluation transform that is still of images."""
    from timm.data import create_transform, resolve_data_config

    steps = create_transform(**resolve_data_config(pretrained_cfg=of_timm)).transforms

    def run(image: Image.Image) -> Image.Image:
        for step in steps:
            out = step(image)
            if isinstance(out, Tensor):
                break
            image = out
        return image

    return run


def _steps(cfg: Config) -> list[dict[str, Any]]:
    """The test pipeline."""
    dataset = (cfg.get("test_dataloader") or {}).get("dataset") or {}
    while "dataset" in dataset:
        dataset = dataset["dataset"]
    return [step for step in dataset.get("pipeline") or [] if isinstance(step, dict)]


def _short_side(scale: Any) -> int | None:
    """Of a ``Resize``: 256, (-1, 256) or (340, 256)."""
    sides = [scale] if isinstance(scale, int) else [side for side in scale if side > 0]
    return min(sides, default=None)


def _scaled(image: np.ndarray, ratio: float) -> np.ndarray:
    return _resize(image, tuple(max(round(side * ratio), 1) for side in image.shape[:2]))


def _resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    smaller = size[0] < image.shape[0]
    way = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return cv2.resize(image, (size[1], size[0]), interpolation=way)
