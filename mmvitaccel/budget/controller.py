"""Chooses the levels of a budget's knobs, frame by frame."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

from mmvitaccel.budget.counts import Counts
from mmvitaccel.budget.knobs import KKnob, RKnob, Seen
from mmvitaccel.budget.moves import move_by_count, move_by_time
from mmvitaccel.budget.quality import QualityFloor
from mmvitaccel.budget.target import Target
from mmvitaccel.budget.timings import Timings

_PATIENCE = 10  # frames over the target at the floor, after which it is missed
_ROOMY = 0.8  # share of the target below which r may fall
_R_STEPS = 4  # steps of r from one bound to the other, together with an eventful model
_KEPT = 8  # stored patterns of calls


class Plan(NamedTuple):
    """How the next frame is computed.

    Attributes:
        level: Of the knob.
        count: Whether its multiply-adds are counted.
        dense: Whether everything is computed, to measure the cost of the dense model.
    """

    level: int
    count: bool
    dense: bool


@dataclass
class _Curves:
    """Cost of the levels in calls of one pattern."""

    timings: Timings
    counts: Counts


class Controller:
    """Follows a target with a knob, and with a coarse knob when the first is at a bound.

    Args:
        knob: Adjusted from frame to frame.
        coarse: r of ToMe in addition to k; changes only with a frame that is computed completely.
        target: The target.
        quality: The floor of the knob.

    Attributes:
        level: Of the knob, for the next frame.
        missed: Why the target cannot be held now; None if it can.
    """

    def __init__(
        self, knob: KKnob | RKnob, coarse: RKnob | None, target: Target, quality: QualityFloor
    ) -> None:
        self.knob, self.coarse, self.quality = knob, coarse, quality
        self.level = min(max(knob.level, knob.low), knob.high)
        if coarse is not None:
            coarse.turn(min(max(coarse.level, coarse.low), coarse.high))
        self.missed: str | None = None
        self._curves: OrderedDict[tuple, _Curves] = OrderedDict()
        self._dense: OrderedDict[tuple, float] = OrderedDict()
        self._seen: Seen | None = None  # the last call on which the level had an influence
        # the level that would have computed everything in the last call
        self._most: int | None = None
        self.set_target(target)

    def set_target(self, target: Target) -> None:
        """Follow another target from the next frame on."""
        self.target, self.missed = target, None
        self._over = self._roomy = self._whole = 0
        if self._seen is not None:
            self._move()

    def plan(self) -> Plan:
        """Set the knobs and return how the next frame is computed."""
        low, high = self.bounds
        self.level = min(max(self.level, low), high)
        if self.target.timed:
            plan = Plan(self.level, False, False)
        else:
            everything = self.knob.everything(self._seen)
            dense = (
                self.target.kind == "share"
                and everything is not None
                and self._dense_cost() is None
            )
            level = everything if dense else self.level
            # Two of several consecutive calls that are computed completely are counted
            known = self._whole > 1 if self._seen is None else level in self._here().counts
            plan = Plan(level, dense or not known, dense)
        self.knob.turn(plan.level)
        return plan

    def note(
        self, plan: Plan, seen: Seen, ms: float | None, macs: float | None, left_out: float | None
    ) -> str | None:
        """Learn from a frame, and choose the level of the next one.

        Args:
            plan: How the frame was computed.
            seen: What is known about the call.
            ms: Milliseconds per image; None if not usable.
            macs: Multiply-adds per image; None if they were not counted.
            left_out: The frame's ``left_out``; None if there is no limit.

        Returns:
            The reason of a change; None without a change.
        """
        self._most = self.knob.everything(seen)
        if macs is not None and (seen.whole or plan.dense) and seen.dense not in self._dense:
            _remember(self._dense, seen.dense, macs)
        if seen.whole:
            return self._note_whole(ms if self.target.timed else self._dense.get(seen.dense))
        self._whole, self._seen = 0, seen
        if not plan.dense:
            if macs is not None:
                self._here().counts.note(plan.level, macs)
            elif ms is not None:
                self._here().timings.note(plan.level, ms)
            if left_out is not None:
                self.quality.note(plan.level, left_out)
        return self._move()

    def cost(self, plan: Plan, seen: Seen) -> float | None:
        """Multiply-adds of an image in a call that was not counted, if they are known."""
        if seen.whole:
            return self._dense.get(seen.dense)
        return self._curves_of(seen).counts.predict(plan.level)

    @property
    def bounds(self) -> tuple[int, int]:
        """Lowest and highest level of the next frame."""
        high = self.knob.high if self._most is None else min(self.knob.high, self._most)
        low = self.knob.low
        if self.quality.limit is not None:
            low = max(low, self.quality.level)
        return min(low, high), high

    def _move(self) -> str | None:
        goal, cost = self._goal(), self._cost_now()
        low, high = self.bounds
        before, curves = self.level, self._here()
        if goal is None:
            self.level = min(max(before, low), high)
        elif self.target.timed:
            self.level = move_by_time(curves.timings, before, goal, low, high)
        else:
            self.level = move_by_count(curves.counts, before, goal, low, high)
        if goal is None or cost is None:
            return None
        said = self._look_for_misses(before, goal, cost)
        if said is None and self.level != before:
            if before < low and self.level == low:
                said = f"frames leave out more than {self.quality.limit:g}"
            else:
                said = f"{'over' if cost > goal else 'under'} the target, {self._say(cost)}"
        return said

    def _look_for_misses(self, before: int, goal: float, cost: float) -> str | None:
        """Check whether the target is missed; changes r first if there is one in addition to k."""
        low, high = self.bounds
        held_down = before <= low and self.level == low and cost > goal
        self._over = self._over + 1 if held_down else 0
        at_end = before >= high and self.level == high and cost < _ROOMY * goal
        self._roomy = self._roomy + 1 if at_end else 0
        if self._over == 0 and self.missed is not None:
            self.missed = None
            return "the target can be held again"
        if self._over >= _PATIENCE and self._turn_coarse(-1):
            return f"over the target at the floor of k, {self._say(cost)}"
        if self._roomy >= _PATIENCE and self._turn_coarse(1):
            return f"under the target at the highest k, {self._say(cost)}"
        if self._over < _PATIENCE or self.missed is not None:
            return None
        return self._miss(f"at the floor {self._floor(low)} a frame takes {self._say(cost)}")

    def _note_whole(self, cost: float | None) -> str | None:
        """A call on which the level had no influence."""
        self._whole += 1
        goal = self._goal()
        over = None not in (cost, goal) and cost > goal
        if self._whole < _PATIENCE or not over or self.missed is not None:
            return None
        return self._miss(
            f"{self._whole} frames in a row were computed whole, which takes {self._say(cost)} "
            f"and does not depend on k; name the streams, `with handle.stream(...)`"
        )

    def _miss(self, reason: str) -> str:
        self.missed = f"{self.target} cannot be held: {reason}"
        return self.missed

    def _floor(self, low: int) -> str:
        floor = f"{self.knob.name}={self.knob.value(low)}"
        limited = self.quality.level > self.knob.low
        return f"{floor}, which left_out={self.quality.limit:g} requires," if limited else floor

    def _turn_coarse(self, sign: int) -> bool:
        """Change r by a step and compute the next frame completely; False if r is at its bound."""
        knob = self.coarse
        if knob is None:
            return False
        step = max((knob.high - knob.low) // _R_STEPS, 1)
        level = min(max(knob.level + sign * step, knob.low), knob.high)
        if level == knob.level:
            return False
        knob.turn(level)
        self.knob.handle.reset()
        self._over = self._roomy = 0
        return True

    def _goal(self) -> float | None:
        """Target cost of a frame; None while the dense model's cost is unknown."""
        if self.target.timed:
            return self.target.milliseconds
        if self.target.kind == "macs":
            return self.target.value
        dense = self._dense_cost()
        return None if dense is None else self.target.value * dense

    def _cost_now(self) -> float | None:
        """Cost of a frame at the current level, in the unit of the goal."""
        curves = self._here()
        return (curves.timings if self.target.timed else curves.counts).predict(self.level)

    def _say(self, cost: float) -> str:
        return f"{cost:.1f} ms" if self.target.timed else f"{cost / 1e9:.3f} G multiply-adds"

    def _here(self) -> _Curves:
        return self._curves_of(self._seen)

    def _curves_of(self, seen: Seen) -> _Curves:
        key = (seen.pattern, None if self.coarse is None else self.coarse.level)
        origin = self.knob.origin
        curves = self._curves.get(key) or _Curves(Timings(origin), Counts(origin))
        _remember(self._curves, key, curves)
        return curves

    def _dense_cost(self) -> float | None:
        return None if self._seen is None else self._dense.get(self._seen.dense)


def _remember(kept: OrderedDict, key: tuple, value: object) -> None:
    """Store a value as the newest, and drop the oldest beyond the limit."""
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > _KEPT:
        kept.popitem(last=False)
