"""Objects, sequences of them, and configs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmvitaccel.arguments.sentence import entries, refuse


def with_methods(owner: str, name: str, value: Any, *methods: str, why: str = "") -> Any:
    """An object with some methods, which comes back as it is.

    Raises:
        ValueError: It is a class, or lacks one of them.
    """
    if isinstance(value, type) or not all(callable(getattr(value, m, None)) for m in methods):
        allowed = f"an object with the method{'s' * (len(methods) > 1)} {' and '.join(methods)}"
        refuse(owner, name, value, allowed, wrong_type=True, why=why)
    return value


def sequence(owner: str, name: str, value: Any, *, what: str = "items", why: str = "") -> tuple:
    """The entries of a list, a tuple, a range or an array of one or more, whatever they are.

    Raises:
        ValueError: It is none of these, or empty.
    """
    allowed = f"a list of one or more {what}"
    found = entries(owner, name, value, allowed, why)
    if not found:
        refuse(owner, name, value, allowed, why=why)
    return found


def config(
    owner: str,
    name: str,
    value: Any,
    *,
    what: str = "a config, dict(type=...)",
    or_none: bool = False,
) -> Any:
    """A dict or another mapping, such as a config; it comes back as it is.

    Raises:
        ValueError: It is none.
    """
    if (value is None and or_none) or _is_config(value):
        return value
    allowed = f"{what}{', or None' if or_none else ''}"
    refuse(owner, name, value, allowed, wrong_type=True)


def init_config(owner: str, value: Any) -> Any:
    """Mmengine's ``init_cfg``: a config, several, or None; it comes back as it is.

    Raises:
        ValueError: It is none of these.
    """
    several = isinstance(value, (list, tuple)) and all(map(_is_config, value))
    if value is not None and not several and not _is_config(value):
        allowed = "a config, dict(type=...), a list of such, or None"
        refuse(owner, "init_cfg", value, allowed, wrong_type=True)
    return value


def _is_config(value: Any) -> bool:
    # mmengine's Config is no Mapping
    return isinstance(value, Mapping) or hasattr(value, "_cfg_dict")
