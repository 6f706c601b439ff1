"""Finds the transformer of an OpenMMLab model for a method."""

from __future__ import annotations

from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import nn

from mmvitaccel.adapters.base import class_name
from mmvitaccel.adapters.hosts.find import locate, supported, transformers_in

_PLACES = ("backbone", "neck")


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside distributed wrappers and wrappers for test-time augmentation."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def find_target(model: nn.Module, target: str | None = None) -> tuple[str, nn.Module]:
    """Find the transformer of a detector, recognizer or classifier.

    Args:
        model: The model, possibly inside wrappers, see :func:`unwrapped`.
        target: Path of the transformer or of a module that contains it, such as ``backbone`` or
            ``neck.encoder``. By default, it is searched in the backbone, then in the neck, or in
            the whole model if it has neither.

    Returns:
        The transformer's path in the unwrapped model and the transformer.

    Raises:
        ValueError: ``target`` does not exist, there is no supported transformer, or there are
            several.
    """
    model = unwrapped(model)
    if target is not None:
        return _inside(model, target)
    places = [name for name in _PLACES if isinstance(getattr(model, name, None), nn.Module)]
    if not places and isinstance(getattr(model, "detector", None), nn.Module):
        path, transformer = find_target(model.detector)  # the detector of a tracker
        return ".".join(filter(None, ("detector", path))), transformer
    if not places:
        return locate(model)
    for place in places:
        if transformers_in(model.get_submodule(place)):
            return _inside(model, place)
    seen = " and ".join(f"{place} ({class_name(getattr(model, place))})" for place in places)
    raise ValueError(
        f"{class_name(model)} has no supported vision transformer in its {seen}; if it is in "
        f"another module, name that module with target; supported are: {supported()}."
    )


def _inside(model: nn.Module, target: str) -> tuple[str, nn.Module]:
    try:
        module = model.get_submodule(target)
    except AttributeError as error:
        names = ", ".join(name for name, _ in model.named_children())
        raise ValueError(
            f"{class_name(model)} has no module at target={target!r} ({error}); its top-level "
            f"modules are: {names}."
        ) from error
    path, transformer = locate(module)
    return ".".join(part for part in (target, path) if part), transformer
