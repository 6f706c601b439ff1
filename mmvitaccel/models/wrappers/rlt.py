"""Run-length tokenization (NeurIPS 2024) around a video transformer of an OpenMMLab config."""

from __future__ import annotations

from torch import nn

from mmvitaccel.adapters.rlt.apply import RLTHandle, apply_rlt
from mmvitaccel.arguments import config, text
from mmvitaccel.models.wrappers.target import find_target
from mmvitaccel.registry import MODELS


@MODELS.register_module()
def RLT(backbone: dict, threshold: float = 0.1, target: str | None = None) -> nn.Module:
    """Build a backbone and drop the repeated patches of its clips.

    Returns the inner module itself, so parameter names and checkpoints are the same as without RLT.
    ToMe may be inside, ``backbone=dict(type='mmvitaccel.ToMe', ...)``, or around it.

    Args:
        backbone: Config of the video transformer, or of a module that contains one.
        threshold: See :func:`mmvitaccel.apply_rlt`.
        target: Path of the transformer in the inner module, if there are several.

    Raises:
        ValueError: There is no supported transformer, or an argument is invalid.

    Example:
        >>> cfg = dict(type='mmvitaccel.RLT', backbone=dict(type='mmvitaccel.ViViT'))
    """
    module = MODELS.build(config("RLT", "backbone", backbone))
    attach_rlt(module, threshold, target)
    return module


def attach_rlt(
    model: nn.Module, threshold: float = 0.1, target: str | None = None
) -> tuple[str, RLTHandle]:
    """Attach RLT to the transformer of a built model.

    Args:
        model: A recognizer or another model with a supported video transformer.
        threshold: See :func:`mmvitaccel.apply_rlt`.
        target: Path of the transformer or of a module that contains it; by default, it is searched.

    Returns:
        The path of the transformer and the handle.

    Raises:
        ValueError: There is no supported transformer, or an argument is invalid.
    """
    target = text("RLT", "target", target, what="a module's path", or_none=True)
    path, transformer = find_target(model, target)
    return path, apply_rlt(transformer, threshold)
