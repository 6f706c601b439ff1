"""Milliseconds of a frame as a function of a knob's level, learned while frames run.

The model is t = a + b * u, where u is the level minus the level at which a frame would cost nothing
if its whole cost followed the level. Until a second level is seen, a is 0, which overestimates how
much the cost reacts to the level, so that a step is too short rather than too long.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import median

_KEPT = 40  # frames
_DECAY = 0.85  # weight of a frame against that of the next one
_LOCAL = 1.0  # a frame at twice the level counts half, at four times a tenth
_USUAL_NOISE = 0.05  # relative deviation of frames, before it is known
_FIXED = 0.3  # deviation of the share that does not follow the level, among models
_MOST_FIXED = 0.95  # of a frame's cost that does not follow the level
_NEAR = 0.1  # levels that differ less than this share are alike
_LEAST_JUMP = 0.12  # share by which a frame's time differs from what was expected
_JUMP = 4.0  # the same in deviations of the noise
_IN_A_ROW = 3  # frames after which the machine itself is slower or faster, not a frame an exception


class Timings:
    """Learns what a frame takes at each level.

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

        A frame that differs much from those at about its level is left out. Where several in a row
        do so to the same side, everything takes that much longer or shorter from now on.
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
        """The level, not rounded and in no bounds, at which a frame takes ``ms``."""
        if not self._seen:
            return None
        a, b = self._fit()
        return self.origin + (ms - a) / b

    def _expected(self, u: float) -> bool:
        """Whether frames at about this level were seen."""
        return any(abs(seen - u) <= _NEAR * u for seen, _ in self._seen)

    def _noise(self) -> float:
        """Relative deviation of frames at one level, by the differences of neighbours."""
        pairs = zip(self._seen, list(self._seen)[1:])
        same = [abs(ms / before - 1) for (u, before), (v, ms) in pairs if u == v]
        # reason: of normal noise, a difference is 0.95 deviations in the median
        return median(same) / 0.95 if len(same) > 2 else _USUAL_NOISE

    def _scale(self, ratio: float) -> None:
        self._seen = deque(((u, ms * ratio) for u, ms in self._seen), maxlen=_KEPT)

    def _fit(self) -> tuple[float, float]:
        """Both by weighted least squares, a pulled towards 0."""
        total = su = st = suu = sut = 0.0
        age, here = 1.0, self._seen[-1][0]
        ridge = min(max((self._noise() / _FIXED) ** 2, 1e-6), 0.1)
        for u, ms in reversed(self._seen):
            # reason: the line is a tangent; what is far away says less of it
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
