"""Texts, paths, names and flags."""

from __future__ import annotations

import os
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

import numpy as np

from mmvitaccel.arguments.sentence import refuse


def flag(owner: str, name: str, value: Any) -> bool:
    """True or False.

    Raises:
        ValueError: It is neither, such as the text ``'False'``.
    """
    if not isinstance(value, (bool, np.bool_)):
        refuse(owner, name, value, "True or False", wrong_type=True)
    return bool(value)


def text(
    owner: str,
    name: str,
    value: Any,
    *,
    what: str = "a text",
    or_none: bool = False,
    why: str = "",
) -> str | None:
    """A text that is not empty.

    Args:
        owner: See the module.
        name: See the module.
        value: See the module.
        what: What the text is, such as a module's path.
        or_none: See the module.
        why: See the module.

    Raises:
        ValueError: It is none, or empty.
    """
    if value is None and or_none:
        return None
    if not isinstance(value, str) or not value:
        allowed = f"{what}{', or None' if or_none else ''}"
        refuse(owner, name, value, allowed, wrong_type=not isinstance(value, str), why=why)
    return str(value)


def path(owner: str, name: str, value: Any, *, or_none: bool = False) -> str | None:
    """A path or an address, as a text or a ``Path``.

    Raises:
        ValueError: It is none, or empty.
    """
    given = os.fspath(value) if isinstance(value, os.PathLike) else value
    return text(owner, name, given, what="a path", or_none=or_none)


def known_names(owner: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse the name of an argument that there is not.

    Raises:
        ValueError: One is unknown.
    """
    known = tuple(known)
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}."
            raise ValueError(f"{owner}: there is no argument {name!r}; {hint}")


def one_of(owner: str, name: str, value: Any, choices: Iterable[str]) -> str:
    """One of several names.

    Raises:
        ValueError: It is none of them.
    """
    choices = tuple(choices)
    if not isinstance(value, str) or value not in choices:
        refuse(owner, name, value, f"one of {', '.join(choices)}")
    return str(value)
