"""What frames cost without a method, and how many multiply-adds a frame takes at a k."""

from __future__ import annotations

import copy
import time
from collections import deque
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import nn

from mmvitaccel.adapters.eventful.detector import handles_in
from mmvitaccel.adapters.eventful.handle import EventfulHandle
from mmvitaccel.budget.counts import Counts
from mmvitaccel.budget.knobs import with_k
from mmvitaccel.core.eventful.gates.policy import Policy
from mmvitaccel.core.macs.counter import MacsCounter
from mmvitaccel.runner.attached_hooks import take_off

_TIMED = 3  # runs of the dense model that a time is the median of
_COUNTED = 5  # levels of k; between them multiply-adds are on a line
Run = Callable[[nn.Module, "int | None"], Any]


class Costs:
    """Measures on copies that share a model's weights, beside the model's own stream.

    Args:
        model: With Eventful on it, in evaluation mode.
        handle: Of that.
        run: ``(model, frame_id)`` runs a model on a frame, as a stream's frame with that number;
            a model without methods takes None.
        timed: Whether the model without any method is timed too.

    Attributes:
        dense_macs: Multiply-adds of the model without any method.
        num_tokens: Tokens of a frame.
    """

    def __init__(self, model: nn.Module, handle: EventfulHandle, run: Run, timed: bool) -> None:
        self._device = next(model.parameters()).device
        self._dense = _copy(model)
        take_off(self._dense, ())
        with MacsCounter() as counter:
            run(self._dense, None)
        self.dense_macs = counter.report().total
        self._times: deque[float] = deque(maxlen=_TIMED)
        for _ in range(_TIMED if timed else 0):
            self.measure_dense(run)
        self._counts = Counts(0)
        self.num_tokens = self._count(model, run, handle.policy)

    def measure_dense(self, run: Run) -> None:
        """Time the model without any method on a frame."""
        start = self.now()
        run(self._dense, None)
        self._times.append(1e3 * (self.now() - start))

    @property
    def dense_ms(self) -> float | None:
        """Milliseconds of the model without any method, the median of its last three runs."""
        return median(self._times) if self._times else None

    def macs(self, k: int | None, whole: bool) -> float | None:
        """Multiply-adds of a frame; None where they do not follow a k."""
        if whole:
            return float(self.dense_macs)
        return None if k is None else self._counts.predict(k)

    def now(self) -> float:
        """Seconds, when all that was started has ended."""
        # reason: kernels run on after the call that started them
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def _count(self, model: nn.Module, run: Run, policy: Policy) -> int:
        """Count at several k; returns the tokens of a frame."""
        counted = _copy(model)
        run(counted, 0)
        num_tokens = EventfulHandle(counted).uncounted_frames[0].num_tokens
        own = copy.deepcopy(policy)
        if with_k(own) is None:
            return num_tokens
        for part in handles_in(counted).values():
            if part.policy is policy:
                part.policy = own
        levels = {max(num_tokens >> step, 1) for step in range(1, _COUNTED)}
        levels |= {num_tokens, min(with_k(own).k, num_tokens)}
        for frame_id, level in enumerate(sorted(levels), start=1):
            with_k(own).k = level
            with MacsCounter() as counter:
                run(counted, frame_id)
            self._counts.note(level, counter.report().total)
        return num_tokens


def _copy(model: nn.Module) -> nn.Module:
    """A copy with the same parameters and buffers, with the methods, without their streams."""
    return copy.deepcopy(model, {id(t): t for t in (*model.parameters(), *model.buffers())})
