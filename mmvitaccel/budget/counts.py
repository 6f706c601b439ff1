"""Multiply-adds of a frame against the level of a knob, each level counted once."""

from __future__ import annotations

from bisect import bisect_left


class Counts:
    """Counted multiply-adds, interpolated for the levels in between.

    Args:
        origin: The level at which a frame would cost nothing if all of its cost followed the level.

    Attributes:
        dense: Multiply-adds of the dense model; None until they are known.
    """

    def __init__(self, origin: int) -> None:
        self.origin = origin
        self.dense: float | None = None
        self._counted: dict[int, float] = {}

    def __contains__(self, level: int) -> bool:
        return level in self._counted

    def note(self, level: int, macs: float) -> None:
        """Store the multiply-adds of a frame at ``level``."""
        self._counted[level] = macs

    def predict(self, level: int) -> float | None:
        """Multiply-adds at a level, on the line through its neighbours; None before the first."""
        levels = sorted(self._counted)
        if not levels or level in self._counted:
            return self._counted.get(level)
        if len(levels) == 1:
            return self._proportional(levels[0], level)
        right = min(max(bisect_left(levels, level), 1), len(levels) - 1)
        low, high = levels[right - 1], levels[right]
        slope = (self._counted[high] - self._counted[low]) / (high - low)
        nearest = low if level < low or abs(level - low) < abs(level - high) else high
        return self._counted[nearest] + slope * (level - nearest)

    def aim(self, macs: float, low: int, high: int) -> int:
        """The highest level from ``low`` to ``high`` that takes at most ``macs``; else ``low``."""
        while low < high:
            middle = (low + high + 1) // 2
            if self.predict(middle) <= macs:
                low = middle
            else:
                high = middle - 1
        return low

    def _proportional(self, known: int, level: int) -> float:
        return self._counted[known] * (level - self.origin) / (known - self.origin)
