"""Numbers, one or several, in a range."""

from __future__ import annotations

from math import isfinite, isinf
from numbers import Integral, Real
from typing import Any, NamedTuple

from mmvitaccel.arguments.sentence import entries, refuse

_COUNTS = {1: "one", 2: "two", 3: "three"}


class _Range(NamedTuple):
    """The ends of a range, as checks take them by name."""

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None

    def has(self, value: Any) -> bool:
        """Whether a number lies in it, which NaN never does."""
        return bool(
            value == value
            and (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        names = ("at least", "above", "at most", "below")
        words = [f"{name} {end}" for name, end in zip(names, self) if end is not None]
        return " and ".join(words)

    def after(self, what: str) -> str:
        """What must be in the range, and the range."""
        return f"{what}, {self}" if str(self) else what

    def of_a_number(self) -> str:
        """What a number in the range must be."""
        least, above, most, below = self
        if least is not None and most is not None:
            return f"within [{least}, {most}]"
        if (least is None and above is None) or (most is None and below is None):
            return f"a number above {above}" if above is not None else self.after("a number")
        return str(self)


def whole_number(
    owner: str,
    name: str,
    value: Any,
    *,
    of: str = "",
    or_none: bool = False,
    why: str = "",
    **ends: int,
) -> int | None:
    """A whole number, such as a count ``of`` something, from ``least`` to ``most``.

    Raises:
        ValueError: It is none, or out of range.
    """
    if value is None and or_none:
        return None
    if not _is_whole(value) or not _Range(**ends).has(value):
        allowed = _Range(**ends).after(f"a whole number{f' of {of}' if of else ''}")
        allowed += ", or None" * or_none
        refuse(owner, name, value, allowed, wrong_type=not _is_number(value), why=why)
    return int(value)


def number(
    owner: str,
    name: str,
    value: Any,
    *,
    or_infinite: bool = False,
    or_none: bool = False,
    why: str = "",
    **ends: float,
) -> float | None:
    """A number that is at ``least``, ``above``, at ``most`` or ``below`` others.

    NaN is in no range, and infinity only where ``or_infinite`` says that it has a meaning.

    Raises:
        ValueError: It is none, or out of range.
    """
    if value is None and or_none:
        return None
    finite = or_infinite or not _is_number(value) or not isinf(value)
    if not _is_number(value) or not finite or not _Range(**ends).has(value):
        allowed = _Range(**ends).of_a_number()
        allowed += ", and finite" * (not finite) + ", or None" * or_none
        refuse(owner, name, value, allowed, wrong_type=not _is_number(value), why=why)
    return float(value)


def whole_numbers(
    owner: str,
    name: str,
    value: Any,
    *,
    count: int | None = None,
    or_empty: bool = False,
    why: str = "",
    **ends: int,
) -> tuple[int, ...]:
    """A sequence of ``count`` whole numbers; by default of one or more, or of none too.

    Raises:
        ValueError: It is no sequence, has another length, or one of them is none or out of range.
    """
    many = ("" if or_empty else "one or more ") if count is None else f"{_COUNTS[count]} "
    allowed = _Range(**ends).after(f"{many}whole numbers")
    found = entries(owner, name, value, allowed, why)
    fits = len(found) == count if count is not None else bool(found) or or_empty
    if not fits or not all(_is_whole(each) and _Range(**ends).has(each) for each in found):
        refuse(owner, name, value, allowed, why=why)
    return tuple(int(each) for each in found)


def numbers(
    owner: str,
    name: str,
    value: Any,
    *,
    or_infinite: bool = False,
    why: str = "",
    **ends: float,
) -> tuple[float, ...]:
    """A sequence of one or more numbers, each as :func:`number` has it.

    Raises:
        ValueError: It is no sequence, is empty, or one of them is none or out of range.
    """
    allowed = _Range(**ends).after("one or more numbers")
    found = entries(owner, name, value, allowed, why)
    sound = all(_is_number(each) and _Range(**ends).has(each) for each in found)
    if not found or not sound or not (or_infinite or all(map(isfinite, found))):
        refuse(owner, name, value, allowed, why=why)
    return tuple(float(each) for each in found)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    if not _is_number(value):
        return False
    return isinstance(value, Integral) or float(value).is_integer()
