"""The sentence that refuses an argument."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any, NoReturn

_SHOWN = reprlib.Repr()
_SHOWN.maxstring = _SHOWN.maxother = 200
_SHOWN.maxlist = _SHOWN.maxtuple = _SHOWN.maxdict = 12


def shown(value: Any) -> str:
    """A value as a message shows it: without the middle of what is overlong."""
    return _SHOWN.repr(value)


def refuse(
    owner: str, name: str, value: Any, allowed: str, *, wrong_type: bool = False, why: str = ""
) -> NoReturn:
    """Say what is wrong with an argument.

    Args:
        owner: See the module.
        name: See the module.
        value: See the module.
        allowed: What it must be.
        wrong_type: Whether the value is of another type, which is then named.
        why: See the module.

    Raises:
        ValueError: In any case.
    """
    kind = f", not {_kind(value)}" if wrong_type else ""
    end = f"; {why}" if why else ""
    raise ValueError(f"{owner}: {name}={shown(value)} must be {allowed}{kind}{end}.")


def entries(owner: str, name: str, value: Any, allowed: str, why: str) -> tuple[Any, ...]:
    """The entries of a list, a tuple, a range or an array.

    Raises:
        ValueError: It is none of these.
    """
    unordered = isinstance(value, (str, bytes, Mapping, set, frozenset))
    try:
        return tuple(None if unordered else value)
    except TypeError:  # A tensor or an array of one number says that it can be iterated
        refuse(owner, name, value, allowed, wrong_type=True, why=why)


def _kind(value: Any) -> str:
    """What a value is, with its article."""
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    kind = type(value).__name__
    return f"an {kind}" if kind[:1].lower() in "aeiou" else f"a {kind}"
