"""The matchings for configs, and the registration of others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from mmvitaccel.arguments import shown
from mmvitaccel.core.tome.controls import RandomDrop, RandomMatching
from mmvitaccel.core.tome.grid import Grid
from mmvitaccel.core.tome.matcher import Bipartite, Matcher
from mmvitaccel.core.tome.threshold import Threshold

#: Classes for ``matching=dict(type=...)``.
MATCHINGS: dict[str, type[Matcher]] = {
    cls.__name__: cls for cls in (Bipartite, Grid, RandomDrop, RandomMatching, Threshold)
}
_Class = TypeVar("_Class", bound=type)


def register_matching(cls: _Class) -> _Class:
    """Decorator that registers a class for ``matching=dict(type='Name')``.

    Raises:
        ValueError: Another class has this name.
        TypeError: The class has no method ``match``.
    """
    if not isinstance(cls, type):
        raise TypeError(
            f"register_matching: cls={shown(cls)} cannot be a matching: it is not a class."
        )
    if not callable(getattr(cls, "match", None)):
        raise TypeError(
            f"register_matching: cls={cls.__name__} cannot be a matching: it has no method 'match'."
        )
    if MATCHINGS.setdefault(cls.__name__, cls) is not cls:
        raise ValueError(
            f"ToMe: a matching named {cls.__name__!r} already exists; rename yours, or pass the "
            f"object itself as matching."
        )
    return cls


def build_matching(matching: Mapping[str, Any] | Matcher) -> Matcher:
    """Build a matching from its config; an object is returned unchanged.

    Raises:
        ValueError: The config has no type, or its type is not registered.
        TypeError: An object without a method ``match``.
    """
    if not isinstance(matching, Mapping):
        if isinstance(matching, type) or not callable(getattr(matching, "match", None)):
            raise TypeError(
                f"ToMe: matching={shown(matching)} has no method 'match'; give dict(type=...) with "
                f"one of {', '.join(sorted(MATCHINGS))}, or an object with this method."
            )
        return matching
    options = dict(matching)
    kind = options.pop("type", None)
    cls = MATCHINGS.get(kind.rpartition(".")[2]) if isinstance(kind, str) else kind
    if not isinstance(cls, type):
        raise ValueError(
            f"ToMe: matching={dict(matching)!r} has no registered type; known are "
            f"{', '.join(sorted(MATCHINGS))}."
        )
    return cls(**options)
