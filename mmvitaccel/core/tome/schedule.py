"""Number of tokens to merge per block (ToMe, section 3.2 and appendix D)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Union

from mmvitaccel.arguments import number, shown
from mmvitaccel.core.tome.merge import max_r

Entry = Union[int, float]
Schedule = Union[int, float, Sequence[Entry], Mapping[str, float]]


def make_schedule(r: Schedule, num_blocks: int) -> tuple[Entry, ...]:
    """Make a schedule with one entry per block.

    Args:
        r: An int, the same in every block; a float in [0, 1), that fraction of the tokens present
            in every block; a list with an entry per block; or a tuple ``(r, inflection)``, also
            ``dict(r=..., inflection=...)``: r per block on average, falling linearly from 2r to 0
            for inflection -1, rising for 1 and constant for 0.
        num_blocks: Number of blocks of the model.

    Raises:
        TypeError: ``r`` has another type.
        ValueError: An entry is negative, a fraction is not below 1, the list's length is not
            ``num_blocks`` or the inflection is not within [-1, 1].
    """
    if isinstance(r, Mapping):
        if set(r) != {"r", "inflection"}:
            raise ValueError(f"ToMe: r={dict(r)} must have exactly the keys 'r' and 'inflection'.")
        return _linear(r["r"], r["inflection"], num_blocks)
    if isinstance(r, tuple) and len(r) == 2:
        return _linear(*r, num_blocks)
    if isinstance(r, (list, tuple)):
        if len(r) != num_blocks:
            raise ValueError(
                f"ToMe: r={list(r)} has {len(r)} entries but the model has {num_blocks} blocks: "
                "give one for each."
            )
        return tuple(_entry(value) for value in r)
    return (_entry(r),) * num_blocks


def check_schedule(r: Schedule) -> None:
    """Refuse a value that is not a valid schedule for any model.

    Raises:
        TypeError: See :func:`make_schedule`.
        ValueError: See :func:`make_schedule`.
    """
    if isinstance(r, (list, tuple)) and not r:
        raise ValueError(f"ToMe: r={r!r} is empty: give one entry for each block.")
    pair = isinstance(r, tuple) and len(r) == 2
    make_schedule(r, len(r) if isinstance(r, (list, tuple)) and not pair else 1)


def tokens_to_merge(entry: Entry, num_tokens: int, num_prefix_tokens: int) -> int:
    """Number of tokens to merge for an entry, limited to the possible number."""
    free = num_tokens - num_prefix_tokens
    wanted = int(entry * free) if isinstance(entry, float) else entry
    return min(wanted, max_r(num_tokens, num_prefix_tokens))


def _entry(value: Entry) -> Entry:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(
            f"ToMe: r={shown(value)} is a {type(value).__name__}: give an int, a fraction, a list "
            "with an entry per block, or (r, inflection)."
        )
    if not value >= 0:
        raise ValueError(f"ToMe: r={value} is negative or not a number: give 0 or more.")
    value = int(value) if isinstance(value, Integral) else float(value)
    if isinstance(value, float) and value >= 1:
        raise ValueError(
            f"ToMe: r={value} is a float, which means a fraction of the tokens and must be below "
            f"1: write r={int(value) if math.isfinite(value) else 1} for a number of tokens."
        )
    return value


def _linear(r: Entry, inflection: float, num_blocks: int) -> tuple[int, ...]:
    """Return entries from ``r * (1 - inflection)`` to ``r * (1 + inflection)`` in equal steps."""
    r = _entry(r)
    if isinstance(r, float):
        raise TypeError(f"ToMe: r={r} with an inflection must be an int.")
    inflection = number("ToMe: r with", "inflection", inflection, least=-1, most=1)
    if num_blocks == 1:
        return (r,)
    first, step = r * (1 - inflection), 2 * r * inflection / (num_blocks - 1)
    return tuple(math.floor(first + step * i + 0.5) for i in range(num_blocks))
