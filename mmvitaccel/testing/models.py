"""Models with random weights in which every part affects the output.

New models can hide errors: the blocks of EfficientViT are the identity, and ViTDet's relative
positions are zero. These builders give them random values. Arguments make small models.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from torch import Tensor, nn


def vitdet(**kwargs: Any) -> nn.Module:
    """Build a ViTDet-B for 1024 x 1024 pixels, with random relative positions.

    Args:
        **kwargs: Arguments of :class:`mmvitaccel.models.vitdet.backbone.ViTDet`.
    """
    from mmvitaccel.models.vitdet.backbone import ViTDet

    model = ViTDet(**kwargs)
    for name, parameter in model.named_parameters():
        if "rel_pos" in name:
            nn.init.normal_(parameter, std=0.02)
    return model


def vivit(**kwargs: Any) -> nn.Module:
    """Build a ViViT-B for clips of 32 frames at 224 x 224 pixels.

    Args:
        **kwargs: Arguments of :class:`mmvitaccel.models.vivit.backbone.ViViT`.
    """
    from mmvitaccel.models.vivit.backbone import ViViT

    return ViViT(**kwargs)


def videomae(**kwargs: Any) -> nn.Module:
    """Build mmaction2's VideoMAE ViT-B for clips of 16 frames at 224 x 224 pixels.

    Args:
        **kwargs: Arguments of mmaction2's ``VisionTransformer``.
    """
    from mmaction.models.backbones.vit_mae import VisionTransformer

    return VisionTransformer(**{"num_frames": 16, "img_size": 224, **kwargs})


def timesformer(**kwargs: Any) -> nn.Module:
    """mmaction2's TimeSformer-B on clips of 8 frames at 224 x 224 pixels, or as in ``kwargs``."""
    from mmaction.models.backbones.timesformer import TimeSformer
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope("mmaction"):
        return TimeSformer(**{"num_frames": 8, "img_size": 224, "patch_size": 16, **kwargs})


def timm_model(name: str, **kwargs: Any) -> nn.Module:
    """Build a model of timm by name."""
    import timm

    return timm.create_model(name, **kwargs)


def efficientvit(arch: Any = "m0", **kwargs: Any) -> nn.Module:
    """Build an EfficientViT in eval mode with BatchNorm folded and random weights.

    Args:
        arch: ``m0`` to ``m5``, or a dict of dimensions.
        **kwargs: Arguments of :class:`mmvitaccel.models.efficientvit.backbone.EfficientViT`.
    """
    from mmvitaccel.models.efficientvit.backbone import EfficientViT

    model = EfficientViT(arch, **kwargs)
    for name, parameter in model.named_parameters():
        if name.endswith(("bn.weight", "bn.bias", "attention_biases")):
            nn.init.normal_(parameter, 1.0 if name.endswith("weight") else 0.0, 0.3)
    model.eval().requires_grad_(False)
    model.switch_to_deploy()
    return model


class Heads(nn.Module):
    """A single-stage detector that returns the raw outputs of its head in one tuple."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute scores and deltas of every level for images (B, 3, H, W)."""
        scores, deltas = self.detector.bbox_head(self.detector.extract_feat(images))
        return (*scores, *deltas)


def detector_heads(config: Path) -> nn.Module:
    """Build a config's detector with BatchNorm folded, without box decoding and NMS.

    Args:
        config: Path of the config of a single-stage detector.
    """
    from mmvitaccel.deploy.onnx_export import build_part
    from mmvitaccel.runner.config import load_config

    return Heads(build_part(load_config(str(config), {}), None, "model", True).detector).eval()


def sharing_weights(model: nn.Module) -> nn.Module:
    """Return a copy of a model that shares its parameters."""
    return copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})
