"""A budget for each frame, held while the model runs."""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from mmvitaccel.adapters.base import host_class
from mmvitaccel.adapters.steering import claim, release
from mmvitaccel.arguments import refuse, whole_number
from mmvitaccel.budget.controller import Controller, Plan
from mmvitaccel.budget.history import (
    REMEMBERED,
    BudgetReport,
    Choice,
    FrameRecord,
    middle_and_p90,
)
from mmvitaccel.budget.knobs import Handle, make_knobs, sorted_handles
from mmvitaccel.budget.quality import QualityFloor
from mmvitaccel.budget.target import Target
from mmvitaccel.core.macs.counter import MacsCounter, is_counting

_LOGGED = 10_000  # choices


class Budget:
    """Sets the k of an eventful model, or the r of ToMe, so that a frame meets a target cost.

    The time is measured over the ``with`` block and divided by the images of a batch; include
    everything that should count, such as decoding. The median is held. Frames that are computed
    completely, such as the first of a stream, are not controlled. Multiply-adds are predicted: each
    level is counted once, in the first frame that uses it, which takes longer. One frame runs at a
    time.

    Args:
        handle: Of Eventful, EventfulNeck or ToMe; of a whole detector, whose first part's k is set,
            and that of parts with the same policy object. Or a pair of one of these and one of
            ToMe: k follows the target, and r changes when k is at a bound, together with a frame
            that is computed completely.
        milliseconds: Target: median milliseconds of a frame.
        macs: Target: multiply-adds of a frame.
        fps: Target: frames per second, from the time in the blocks.
        share: Target: share of the multiply-adds of a frame that is computed completely.
        k: Lowest and highest k. Required for Eventful and EventfulNeck, whose policy has a ``k``.
        r: Lowest and highest r. Required for ToMe, whose r is a number.
        left_out: Upper limit of ``handle.frames[0].left_out``, regardless of the target. Reading it
            synchronises with a CUDA device in each frame.
        clock: Returns the time in seconds.

    Attributes:
        choices: The latest changes, newest last.
        frames: Records of the last 100 frames, newest last.

    Raises:
        ValueError: Not exactly one target, invalid bounds or values, or a policy without a k.
        TypeError: A handle of another kind.
        RuntimeError: Another budget or schedule already controls the method.

    Examples:
        >>> handle = apply_eventful(model, TopK(512))
        >>> budget = Budget(handle, milliseconds=200, k=(64, 1024))
        >>> for frame in video:
        ...     with budget.frame():
        ...         features = model(frame)
        >>> print(budget.report())
    """

    def __init__(
        self,
        handle: Handle | Sequence[Handle],
        *,
        milliseconds: float | None = None,
        macs: float | None = None,
        fps: float | None = None,
        share: float | None = None,
        k: tuple[int, int] | None = None,
        r: tuple[int, int] | None = None,
        left_out: float | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if not callable(clock):
            refuse("Budget", "clock", clock, "a function that gives seconds", wrong_type=True)
        target = Target.of(milliseconds=milliseconds, macs=macs, fps=fps, share=share)
        self._handles = sorted_handles(handle)
        knobs = make_knobs(self._handles, k, r, left_out)
        quality = QualityFloor(left_out)
        for each in self._handles:
            claim(each.model, self)
        self._knobs, self._before = knobs, [knob.level for knob in knobs]
        self._control = Controller(knobs[0], knobs[1] if knobs[1:] else None, target, quality)
        self._device = next(self._handles[0].model.parameters()).device
        self._clock, self._left_out = clock, left_out is not None
        self._count, self._open = 0, False
        self.frames: deque[FrameRecord] = deque(maxlen=REMEMBERED)
        self.choices: deque[Choice] = deque(maxlen=_LOGGED)
        self._log(f"target {target}")

    @property
    def target(self) -> Target:
        """The current target."""
        return self._control.target

    def set_target(self, target: Target | None = None, **given: float) -> None:
        """Hold another target from the next frame on.

        Args:
            target: The target.
            **given: Instead, one of ``milliseconds``, ``macs``, ``fps`` and ``share``.

        Raises:
            ValueError: Not exactly one target, or an invalid value.
        """
        if target is None:
            target = Target.of(**given)
        elif not isinstance(target, Target) or given:
            refuse(
                "Budget", "target", target if not given else (target, given),
                "a Target alone; or give one of milliseconds, macs, fps and share by name",
            )  # fmt: skip
        self._control.set_target(target)
        self._log(f"target {target}")

    @property
    def k(self) -> int | None:
        """The k of the next frame; None if no k is controlled."""
        return self._values()["k"]

    @property
    def r(self) -> int | None:
        """The r of the next frame; None if no r is controlled."""
        return self._values()["r"]

    @property
    def missed(self) -> str | None:
        """A message if the target cannot be held now, else None; also issued once as a warning."""
        return self._control.missed

    @contextmanager
    def frame(self) -> Iterator[FrameRecord]:
        """Context manager: run the model once in the block.

        Nothing is learned from a frame that ends in an error, or from a block in which the model
        does not run.

        Yields:
            The frame's record, complete after the block. For a batch of several images, set its
            ``images`` in the block: the cost is divided by this number.

        Raises:
            RuntimeError: Another frame has not ended, or a method was removed from its model.
            ValueError: After the block, if ``images`` is not a whole number of at least 1.
        """
        self._check()
        self._open = True
        try:
            plan = self._control.plan()
            before, record = self._control.knob.look(), FrameRecord(self._count, self.target)
            # Another counter slows the frame like our own
            slow = plan.count or is_counting()
            counter = MacsCounter() if plan.count and not is_counting() else None
            start = self._now()
            if counter is None:
                yield record
            else:
                with counter:
                    yield record
            ms = 1e3 * (self._now() - start)
            self._note(plan, before, record, None if slow else ms, counter)
        finally:
            self._open = False

    def report(self) -> BudgetReport:
        """The current state; ``print`` shows it in one line."""
        times = [record.milliseconds for record in self.frames if record.milliseconds is not None]
        median, p90 = middle_and_p90(times)
        return BudgetReport(
            self.target, self._count, median, p90, self.k, self.r, self._control.missed
        )

    def remove(self) -> None:
        """Stop: k and r get their previous values, and another budget may control the method."""
        for handle, knob, level in zip(self._handles, self._knobs, self._before):
            if handle.attached:
                knob.turn(level)
                release(handle.model, self)
        self._handles = []

    def _note(
        self,
        plan: Plan,
        before: Any,
        record: FrameRecord,
        ms: float | None,
        counter: MacsCounter | None,
    ) -> None:
        """Record a frame that has ended."""
        seen = self._control.knob.look()
        if seen is None or (before is not None and seen.call is before.call):
            return
        whole_number("Budget", "images", record.images, least=1, why="the cost is divided by it")
        record.k, record.r = self._values(plan.level).values()
        record.whole = seen.whole
        macs = None if counter is None else counter.report().total / record.images
        record.macs = self._control.cost(plan, seen) if macs is None else macs
        if ms is not None and (self.target.timed or self._device.type != "cuda"):
            record.milliseconds = ms / record.images
        if self._left_out:
            counted = self._handles[0].frames
            record.left_out = sum(frame.left_out for frame in counted) / len(counted)
        self.frames.append(record)
        self._count += 1
        missed = self.missed
        said = self._control.note(plan, seen, record.milliseconds, macs, record.left_out)
        if said is not None:
            self._log(said)
        if self.missed is not None and missed is None:
            warnings.warn(f"Budget: {self.missed}.", stacklevel=5)

    def _check(self) -> None:
        if self._open:
            raise RuntimeError(
                "Budget: a frame begins while another is computed, so their times would overlap; "
                "run one frame at a time, or use one model and one budget per thread."
            )
        gone = [h for h in self._handles if not h.attached]
        if gone or not self._handles:
            what = (
                f"the method was removed from its {host_class(gone[0].model).__name__}"
                if gone
                else ("it was removed")
            )
            raise RuntimeError(
                f"Budget: {what}, so there is nothing to control; create a new budget."
            )

    def _now(self) -> float:
        # Kernels run on after the call that started them
        if self.target.timed and self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return self._clock()

    def _values(self, level: int | None = None) -> dict[str, int | None]:
        """Values of k and r with the first knob at a level, by default that of the next frame."""
        first, *others = self._knobs
        level = self._control.level if level is None else level
        values = {first.name: first.value(level), **{o.name: o.value(o.level) for o in others}}
        return {name: values.get(name) for name in ("k", "r")}

    def _log(self, reason: str) -> None:
        self.choices.append(Choice(self._count, **self._values(), reason=reason))
