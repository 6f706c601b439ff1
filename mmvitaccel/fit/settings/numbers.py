"""Checks of numbers in a config, with the dotted key in the sentence."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from mmvitaccel.errors import UserError


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number; 8.0 is one, and True is none."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return isfinite(value) and value == int(value)


def check_whole(holder: Mapping[str, Any], where: str, key: str, least: int) -> None:
    """Refuse a setting that is no whole number, or below the least one; None is left alone.

    Raises:
        UserError: It is.
    """
    value = holder.get(key)
    if value is None:
        return
    if not is_whole(value):
        raise UserError(f"{where}.{key} is {value!r}; give a whole number, {least} or more.")
    if value < least:
        raise UserError(f"{where}.{key} is {value}; give {least} or more.")
