"""The matchings that a config can name, and how one's own joins them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from mmvitaccel.core.tome.controls import RandomDrop, RandomMatching
from mmvitaccel.core.tome.grid import Grid
from mmvitaccel.core.tome.matcher import Bipartite, Matcher
from mmvitaccel.core.tome.threshold import Threshold

#: The classes that ``matching=dict(type=...)`` names.
MATCHINGS: dict[str, type[Matcher]] = {
    cls.__name__: cls for cls in (Bipartite, Grid, RandomDrop, RandomMatching, Threshold)
}
_Class = TypeVar("_Class", bound=type)


def register_matching(cls: _Class) -> _Class:
    """Let ``matching=dict(type='Name')`` name a class of one's own; a decorator.

    Raises:
        ValueError: Another class has that name.
        TypeError: It has no method ``match``.
    """
    if not callable(getattr(cls, "match", None)):
        raise TypeError(f"ToMe: {cls.__name__} cannot be a matching: it has no method 'match'.")
    if MATCHINGS.setdefault(cls.__name__, cls) is not cls:
        raise ValueError(
            f"ToMe: a matching is called {cls.__name__!r} already; give yours another name, or "
            "give the object itself as matching."
        )
    return cls


def build_matching(matching: Mapping[str, Any] | Matcher) -> Matcher:
    """A matching from its config; an object comes back.

    Raises:
        ValueError: The config has no type, or its type is not registered.
        TypeError: An object without a method ``match``.
    """
    if not isinstance(matching, Mapping):
        if not callable(getattr(matching, "match", None)):
            raise TypeError(
                f"ToMe: matching={matching!r} has no method 'match'; give dict(type=...) with one "
                f"of {', '.join(sorted(MATCHINGS))}, or an object with it."
            )
        return matching
    options = dict(matching)
    kind = options.pop("type", None)
    cls = MATCHINGS.get(kind.rpartition(".")[2]) if isinstance(kind, str) else kind
    if cls is None:
        raise ValueError(
            f"ToMe: matching={dict(matching)!r} has no type that is registered; known are "
            f"{', '.join(sorted(MATCHINGS))}."
        )
    return cls(**options)
