"""Models with random weights in which every part counts; small ones by their arguments.

New models hide errors and costs: blocks of EfficientViT begin as the identity, and relative
positions of ViTDet as zeros. The builders here fill them.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from torch import Tensor, nn


def vitdet(**kwargs: Any) -> nn.Module:
    """ViTDet-B at 1024 x 1024 pixels, its relative positions not zero.

    Args:
        **kwargs: Of :class:`mmvitaccel.models.vitdet.backbone.ViTDet`.
    """
    from mmvitaccel.models.vitdet.backbone import ViTDet

    model = ViTDet(**kwargs)
    for name, parameter in model.named_parameters():
        if "rel_pos" in name:
            nn.init.normal_(parameter, std=0.02)
    return model


def vivit(**kwargs: Any) -> nn.Module:
    """ViViT-B on clips of 32 frames at 224 x 224 pixels, or what ``kwargs`` say."""
    from mmvitaccel.models.vivit.backbone import ViViT

    return ViViT(**kwargs)


def videomae(**kwargs: Any) -> nn.Module:
    """mmaction2's VideoMAE ViT-B on clips of 16 frames at 224 x 224 pixels, or as in ``kwargs``."""
    from mmaction.models.backbones.vit_mae import VisionTransformer

    return VisionTransformer(**{"num_frames": 16, "img_size": 224, **kwargs})


def timm_model(name: str, **kwargs: Any) -> nn.Module:
    """A model of timm by name."""
    import timm

    return timm.create_model(name, **kwargs)


def efficientvit(arch: Any = "m0", **kwargs: Any) -> nn.Module:
    """A folded EfficientViT in evaluation mode, its blocks not the identity.

    Args:
        arch: ``m0`` to ``m5``, or a dict of sizes.
        **kwargs: Of :class:`mmvitaccel.models.efficientvit.backbone.EfficientViT`.
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
    """A single-stage detector from pixels to the outputs of its head, in one tuple."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) to scores and deltas of every level."""
        scores, deltas = self.detector.bbox_head(self.detector.extract_feat(images))
        return (*scores, *deltas)


def detector_heads(config: Path) -> nn.Module:
    """The folded detector of a config, without decoding of boxes and suppression.

    Args:
        config: Of a single-stage detector.
    """
    from mmvitaccel.deploy.onnx_export import build_part
    from mmvitaccel.runner.config import load_config

    return Heads(build_part(load_config(str(config), {}), None, "model", True).detector).eval()


def sharing_weights(model: nn.Module) -> nn.Module:
    """A copy to put a method on, with the very parameters of the dense model."""
    return copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})
