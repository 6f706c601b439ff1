"""Milliseconds of a frame as a function of a knob's level, learned while frames run.

The model is t = a + b * u, where u is the level minus the level at which a frame would cost nothing
if its whole cost followed the level. Until a second level is seen, a is 0. This overestimates the
effect of the level, so steps are too short rather than too long.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import median

_KEPT = 40  # frames
_DECAY = 0.85  # weight of a frame against that of the next one
_LOCAL = 1.0  # weights by level: half at twice the level, a tenth at four times
_USUAL_NOISE = 0.05  # relative deviation of frames, before it is known
_FIXED = 0.3  # deviation over models of the share of cost that does not depend on the level
_MOST_FIXED = 0.95  # share of a frame's cost that does not depend on the level
_NEAR = 0.1  # levels that differ by less than this share are treated as equal
_LEAST_JUMP = 0.12  # relative difference from the expected time
_JUMP = 4.0  # the same in standard deviations of the noise
_IN_A_ROW = 3  # consecutive outliers after which the machine is assumed to be slower or faster


class Timings:
    """Learns the time of a frame at each level.

    Args:
        origin: The level at which a frame would cost nothing if all of its cost followed the level;
            below every level that is noted.
    """

    def __init__(self, origin: int) -> None:
        self.origin = origin
        self._seen: deque[tuple[float, float]] = deque(maxlen=_KEPT)
        self._strange: list[float] = []

    def note(self, level: int, ms: float) -> None:
        """A frame at ``level`` took ``ms``.

        A frame that differs much from those near its level is ignored. After several outliers in a
        row in the same direction, all times are scaled accordingly.
        """
        u = level - self.origin
        if self._expected(u):
            ratio = ms / self.predict(level)
            limit = max(_LEAST_JUMP, _JUMP * self._noise())
            if abs(math.log(ratio)) > math.log1p(limit):
                self._strange = [r for r in self._strange if (r > 1) == (ratio > 1)] + [ratio]
                if len(self._strange) < _IN_A_ROW:
                    return
                self._scale(median(self._strange))
        self._strange = []
        self._seen.append((u, ms))

    def predict(self, level: int) -> float | None:
        """Milliseconds at a level; None before the first frame."""
        if not self._seen:
            return None
        a, b = self._fit()
        return a + b * (level - self.origin)

    def aim(self, ms: float) -> float | None:
        """The level, unrounded and unbounded, at which a frame takes ``ms``."""
        if not self._seen:
            return None
        a, b = self._fit()
        return self.origin + (ms - a) / b

    def _expected(self, u: float) -> bool:
        """Whether frames near this level were seen."""
        return any(abs(seen - u) <= _NEAR * u for seen, _ in self._seen)

    def _noise(self) -> float:
        """Relative standard deviation of frames at one level, from successive differences."""
        pairs = zip(self._seen, list(self._seen)[1:])
        same = [abs(ms / before - 1) for (u, before), (v, ms) in pairs if u == v]
        # For normal noise, the median absolute difference is 0.95 standard deviations
        return median(same) / 0.95 if len(same) > 2 else _USUAL_NOISE

    def _scale(self, ratio: float) -> None:
        self._seen = deque(((u, ms * ratio) for u, ms in self._seen), maxlen=_KEPT)

    def _fit(self) -> tuple[float, float]:
        """Fit a and b by weighted least squares, with a regularised towards 0."""
        total = su = st = suu = sut = 0.0
        age, here = 1.0, self._seen[-1][0]
        ridge = min(max((self._noise() / _FIXED) ** 2, 1e-6), 0.1)
        for u, ms in reversed(self._seen):
            # The line is a local fit; distant levels have less weight
            weight = age / (1 + (_LOCAL * (u / here - 1)) ** 2)
            total += weight
            su += weight * u
            st += weight * ms
            suu += weight * u * u
            sut += weight * u * ms
            age *= _DECAY
        a = (st * suu - su * sut) / ((total + ridge) * suu - su * su)
        a = min(max(a, 0.0), _MOST_FIXED * st / total)
        return a, (st - a * total) / su
