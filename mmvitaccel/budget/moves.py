"""The level of the next frame from the costs of levels, with hysteresis."""

from __future__ import annotations

import math

from mmvitaccel.budget.counts import Counts
from mmvitaccel.budget.timings import Timings

#: Width of the band below the target in which the level stays, as a share of the target.
BAND = 0.06
_GAIN = 0.75  # share of the distance to the wanted level per frame
_MOST = 3.0  # largest factor of the level-dependent cost between two frames


def move_by_time(timings: Timings, level: int, ms: float, low: int, high: int) -> int:
    """The level after ``level`` for frames of at most ``ms``, between ``low`` and ``high``."""
    now = timings.predict(level)
    if now is None or (1 - BAND) * ms <= now <= ms:
        return _within(level, low, high)
    u = level - timings.origin
    wanted = timings.aim((1 - BAND / 2) * ms) - timings.origin
    wanted = min(max(wanted, u / _MOST), u * _MOST)
    after = math.floor(level + _GAIN * (wanted - u))
    if now > ms:
        return _within(min(after, level - 1), low, high)
    after = _within(max(after, level + 1), low, high)
    # With few levels, none may be in the band, and two would alternate
    return after if timings.predict(after) <= ms else _within(level, low, high)


def move_by_count(counts: Counts, level: int, macs: float, low: int, high: int) -> int:
    """The level after ``level`` for frames of at most ``macs``, between ``low`` and ``high``."""
    now = counts.predict(level)
    if now is None or ((1 - BAND) * macs <= now <= macs and low <= level <= high):
        return _within(level, low, high)
    return counts.aim(macs, low, high)


def _within(level: int, low: int, high: int) -> int:
    return min(max(level, low), high)
