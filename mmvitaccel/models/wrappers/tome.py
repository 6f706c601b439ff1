"""Token merging (Bolya et al., ICLR 2023) around a transformer of an OpenMMLab config."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from mmvitaccel.adapters.given import check_adapter
from mmvitaccel.adapters.tome.apply import apply_tome, merge_options
from mmvitaccel.adapters.tome.handle import ToMeHandle
from mmvitaccel.arguments import config, flag, known_names, text
from mmvitaccel.core.tome.schedule import Schedule
from mmvitaccel.models.wrappers.target import find_target
from mmvitaccel.registry import MODELS


@MODELS.register_module()
def ToMe(
    backbone: dict | None = None,
    neck: dict | None = None,
    r: Schedule = 8,
    target: str | None = None,
    **options: Any,
) -> nn.Module:
    """Build a backbone (or neck) and merge tokens in it.

    Returns the inner module itself, so parameter names, checkpoints, layer decay and
    ``custom_keys`` are the same as without ToMe.

    Args:
        backbone: Config of the transformer, or of a module that contains one.
        neck: The same for a transformer neck; give one of the two.
        r: Tokens merged per block, see :func:`mmvitaccel.apply_tome`.
        target: Path of the transformer in the inner module, if there are several.
        **options: Further arguments of :func:`mmvitaccel.apply_tome`.

    Raises:
        ValueError: Not exactly one of ``backbone`` and ``neck`` is given, there is no supported
            transformer, or an argument is invalid.

    Example:
        >>> cfg = dict(
        ...     type='mmvitaccel.ToMe',
        ...     r=8,
        ...     backbone=dict(type='mmaction.VisionTransformer', depth=12),
        ... )
    """
    given = {
        name: config("ToMe", name, cfg)
        for name, cfg in dict(backbone=backbone, neck=neck).items()
        if cfg is not None
    }
    if len(given) != 1:
        raise ValueError(
            f"ToMe wraps one module, but got {' and '.join(given) or 'neither'} of backbone=dict("
            "type=...) and neck=dict(type=...): give one."
        )
    module = MODELS.build(*given.values())
    attach_tome(module, r, target, **options)
    return module


def attach_tome(
    model: nn.Module, r: Schedule = 8, target: str | None = None, **options: Any
) -> tuple[str, ToMeHandle]:
    """Merge tokens in the transformer of a built model.

    Args:
        model: A detector, recognizer, classifier or another model with a supported transformer.
        r: See :func:`mmvitaccel.apply_tome`.
        target: Path of the transformer or of a module that contains it; by default, it is searched.
        **options: Further arguments of :func:`mmvitaccel.apply_tome`.

    Returns:
        The path of the transformer and the handle.

    Raises:
        ValueError: There is no supported transformer, or an argument is invalid.
    """
    target = text("ToMe", "target", target, what="a module's path", or_none=True)
    path, transformer = find_target(model, target)
    return path, apply_tome(transformer, r, **options)


def check_tome_options(options: Mapping[str, Any]) -> None:
    """Check further arguments of :func:`mmvitaccel.apply_tome` before there is a model.

    Raises:
        ValueError: One is unknown or has no meaning.
    """
    known = inspect.signature(apply_tome).parameters
    defaults = {name: p.default for name, p in known.items() if p.kind is p.KEYWORD_ONLY}
    known_names("ToMe", options, defaults)
    given = {**defaults, **options}
    flag("ToMe", "trace_source", given.pop("trace_source"))
    check_adapter("ToMe", given.pop("adapter"))
    merge_options(given.pop("proportional_attention"), **given)
