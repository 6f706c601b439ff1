"""Backbones to analyse, and images as their input."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import cv2
import torch
from torch import Tensor, nn

from mmvitaccel.errors import UserError, building, closest
from mmvitaccel.fit.heads import backbone_of
from mmvitaccel.models.weights.wrapped import USUAL, Choice
from mmvitaccel.runner.checkpoint import check_checkpoint
from mmvitaccel.runner.config import load_config
from mmvitaccel.runner.session import build_model

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def load_backbone(name: str, checkpoint: str | None = None, choice: Choice = USUAL) -> nn.Module:
    """The backbone of a config's model (of a tracker, its detector's), or a model of timm.

    It is in eval mode.

    Args:
        name: A config file, ``package::path`` of an installed one, or the name of a timm model
            (``deit_tiny_patch16_224``).
        checkpoint: Checkpoint of the config's whole model or of the timm model; None for random
            weights.
        choice: Selects the weights in the checkpoint.

    Raises:
        UserError: The model does not exist or takes clips, or the checkpoint does not match.
    """
    if name.endswith(".py") or "::" in name:
        cfg = load_config(name, {})
        model = build_model(cfg)
        backbone = backbone_of(model)
        if backbone is None:
            raise UserError(f"{name}: {type(model).__name__} has no backbone; give another config.")
        layout = (cfg.model.get("data_preprocessor") or {}).get("format_shape", "NCHW")
        if "T" in layout:
            raise UserError(
                f"{name}: the backbone {type(backbone).__name__} takes clips ({layout}), but "
                f"this tool uses images; give the config of an image model."
            )
    else:
        model = backbone = _timm_model(name)
    if checkpoint is not None:
        check_checkpoint(model, checkpoint, choice=choice)
    backbone.eval()  # train() of many mmdet models returns None
    return backbone


def _timm_model(name: str) -> nn.Module:
    import timm

    if not timm.is_model(name):
        raise UserError(
            f"{name} is neither a config file (.py) nor a model of timm; correct the name"
            f"{closest(name, timm.list_models()) or '.'}"
        )
    with building(name), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return timm.create_model(name)


def image_files(folder: str | Path, count: int) -> list[Path]:
    """The first images of a folder, sorted by name.

    Raises:
        UserError: The folder has no images.
    """
    kinds = {".jpg", ".jpeg", ".png"}
    folder = Path(folder)
    files = sorted(p for p in folder.glob("*") if p.suffix.lower() in kinds)[:count]
    if not files:
        raise UserError(f"{folder} has no .jpg or .png images; give a folder with images.")
    return files


def read_images(files: Sequence[Path], side: int) -> Tensor:
    """Read images as (B, 3, side, side) float32, normalised with ImageNet's mean and std.

    Raises:
        UserError: An image cannot be read.
    """
    images = []
    for file in files:
        image = cv2.imread(str(file))
        if image is None:
            raise UserError(f"{file} cannot be read as an image; remove it or give another folder.")
        image = cv2.cvtColor(cv2.resize(image, (side, side)), cv2.COLOR_BGR2RGB)
        images.append(torch.from_numpy(image).permute(2, 0, 1))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (torch.stack(images) / 255 - mean) / std
