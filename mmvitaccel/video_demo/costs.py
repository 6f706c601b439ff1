"""Costs of a frame: dense time and multiply-adds, and eventful multiply-adds by k."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import nn

from mmvitaccel.adapters.eventful.handle import EventfulHandle
from mmvitaccel.budget.counts import Counts
from mmvitaccel.budget.knobs import with_k
from mmvitaccel.core.macs.counter import MacsCounter
from mmvitaccel.runner.attached_hooks import take_off
from mmvitaccel.video_demo.copies import on_the_same_weights

_TIMED = 3  # runs of the dense model over which its time is the median
_COUNTED = 5  # levels of k at which multiply-adds are counted; between them they are interpolated
Run = Callable[[nn.Module, "int | None"], Any]


class Costs:
    """Measures costs on copies that share a model's weights, so that its stream is not touched.

    Args:
        model: A model with Eventful, in evaluation mode.
        run: ``run(model, frame_id)`` runs a model on a frame with that number; ``frame_id`` is None
            for a model without Eventful.
        timed: Whether to time the dense model too.

    Attributes:
        dense_macs: Multiply-adds of the dense model.
        num_tokens: Number of tokens of a frame.
    """

    def __init__(self, model: nn.Module, run: Run, timed: bool) -> None:
        self._device = next(model.parameters()).device
        self._dense = on_the_same_weights(model)
        take_off(self._dense, ())
        with MacsCounter() as counter:
            run(self._dense, None)
        self.dense_macs = counter.report().total
        self._times: deque[float] = deque(maxlen=_TIMED)
        for _ in range(_TIMED if timed else 0):
            self.measure_dense(run)
        self._counts = Counts(0)
        self.num_tokens = self._count(model, run)

    def measure_dense(self, run: Run) -> Any:
        """Time the dense model on a frame; returns its output."""
        start = self.now()
        given = run(self._dense, None)
        self._times.append(1e3 * (self.now() - start))
        return given

    @property
    def dense_ms(self) -> float | None:
        """Milliseconds of the dense model, the median of its last three runs."""
        return median(self._times) if self._times else None

    def macs(self, k: int | None, whole: bool) -> float | None:
        """Multiply-adds of a frame; None if the policy has no k."""
        if whole:
            return float(self.dense_macs)
        # A policy lets at most all tokens pass
        return None if k is None else self._counts.predict(min(k, self.num_tokens))

    def now(self) -> float:
        """The time in seconds, after all running kernels have ended."""
        # CUDA kernels run asynchronously
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def _count(self, model: nn.Module, run: Run) -> int:
        """Count multiply-adds at several k; returns the number of tokens of a frame."""
        counted = on_the_same_weights(model)
        run(counted, 0)
        num_tokens = EventfulHandle(counted).uncounted_frames[0].num_tokens
        policy = with_k(EventfulHandle(counted).policy)
        if policy is None:
            return num_tokens
        levels = {max(num_tokens >> step, 1) for step in range(1, _COUNTED)}
        levels |= {num_tokens, min(policy.k, num_tokens)}
        for frame_id, level in enumerate(sorted(levels), start=1):
            policy.k = level
            with MacsCounter() as counter:
                run(counted, frame_id)
            self._counts.note(level, counter.report().total)
        return num_tokens
