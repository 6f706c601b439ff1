"""A simulated model: what a frame takes at a k, so that a controller is tested without a clock."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

from mmvitaccel.adapters.eventful.streams.frame_info import FrameInfo
from mmvitaccel.budget.controller import Controller
from mmvitaccel.budget.knobs import KKnob
from mmvitaccel.budget.quality import QualityFloor
from mmvitaccel.budget.target import Target
from mmvitaccel.core.eventful.gates.policy import TopK

TOKENS = 1024


class Plant:
    """Frames of a stream under a controller of k.

    Args:
        cost: k to what a frame takes, in milliseconds or multiply-adds.
        target: The target.
        k: Bounds.
        start: k before the controller.
        left_out: k to what a frame leaves out, with its limit; None for no limit.
    """

    def __init__(
        self,
        cost: Callable[[int], float],
        target: Target,
        k: tuple[int, int] = (16, TOKENS),
        start: int = 512,
        left_out: tuple[Callable[[int], float], float] | None = None,
    ) -> None:
        self.cost = cost
        self.left_out, limit = left_out or (None, None)
        handle = SimpleNamespace(policy=TopK(start), uncounted_frames=[])
        self.handle = handle
        self.control = Controller(KKnob(handle, k), None, target, QualityFloor(limit))
        self.said: list[str] = []
        self.counted: list[int] = []

    def frame(self, first: bool = False, noise: float = 1.0) -> float:
        """Compute a frame; returns what it took."""
        plan = self.control.plan()
        k = TOKENS if first else plan.level
        assert self.handle.policy.k == plan.level
        self.handle.uncounted_frames = [FrameInfo("video", None, first, TOKENS, [])]
        cost = self.cost(k) * noise
        timed = self.control.target.timed
        if plan.count:
            self.counted.append(plan.level)
        left_out = None if self.left_out is None or first else self.left_out(plan.level)
        said = self.control.note(
            plan,
            self.control.knob.look(),
            cost if timed else None,
            cost if plan.count else None,
            left_out,
        )
        self.said += [] if said is None else [said]
        return cost

    def run(self, frames: int, noise: Callable[[], float] = lambda: 1.0) -> list[float]:
        """Compute frames; returns what they took."""
        return [self.frame(noise=noise()) for _ in range(frames)]
