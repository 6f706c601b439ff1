"""Checks of arguments of the functions that attach a method to a model."""

from __future__ import annotations

from typing import Any

from torch import nn

from mmvitaccel.adapters.base import ViTAdapter
from mmvitaccel.arguments import refuse, shown


def check_model(method: str, model: Any) -> None:
    """Check that a model is a module.

    Raises:
        ValueError: It is not a module.
    """
    if not isinstance(model, nn.Module):
        refuse(method, "model", model, "a torch.nn.Module, such as a timm model", wrong_type=True)


def check_adapter(method: str, adapter: Any) -> None:
    """Check that an adapter is a record of a model.

    Raises:
        ValueError: It is neither a :class:`~mmvitaccel.adapters.base.ViTAdapter` nor None.
    """
    if adapter is not None and not isinstance(adapter, ViTAdapter):
        refuse(method, "adapter", adapter, "a ViTAdapter or None", wrong_type=True)


def check_object(method: str, name: str, value: Any, needed: tuple[str, ...], give: str) -> None:
    """Refuse an object without the methods that are called, and a class in place of an object.

    Args:
        method: Of which it is an argument.
        name: Of the argument.
        value: What was given.
        needed: Names of methods.
        give: What to give instead.

    Raises:
        TypeError: It is a class, or lacks one.
    """
    if isinstance(value, type):
        raise TypeError(
            f"{method}: {name}={value.__name__} is a class, not an object; give {give}."
        )
    if not all(callable(getattr(value, each, None)) for each in needed):
        methods = f"method{'s' * (len(needed) > 1)} {' and '.join(needed)}"
        raise TypeError(f"{method}: {name}={shown(value)} has no {methods}; give {give}.")
