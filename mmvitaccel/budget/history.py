"""The history of a budget: records of frames and of changes, and a summary."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median, quantiles

from mmvitaccel.budget.target import Target

#: Number of latest frames that medians and percentiles cover.
REMEMBERED = 100


@dataclass
class FrameRecord:
    """One frame, that is one ``with budget.frame():``.

    Attributes:
        number: From 0.
        target: Target cost of the frame.
        k: Tokens that pass each gate; None if no k is controlled.
        r: Tokens merged in each block; None if no r is controlled.
        images: Number of images by which the cost is divided. Can be set inside the block.
        milliseconds: Time per image; None for a frame whose multiply-adds were counted, which takes
            longer.
        macs: Multiply-adds per image, counted or predicted; None with a target in time, and while
            unknown.
        whole: Whether every image was computed completely, like the first of a stream.
        left_out: The frame's ``left_out``; None unless a limit was given.
    """

    number: int
    target: Target
    k: int | None = None
    r: int | None = None
    images: int = 1
    milliseconds: float | None = None
    macs: float | None = None
    whole: bool = False
    left_out: float | None = None


@dataclass(frozen=True)
class Choice:
    """A change of k or r.

    Attributes:
        frame: Number of the first frame that it holds for.
        k: New value; None if no k is controlled.
        r: New value; None if no r is controlled.
        reason: Why it changed.
    """

    frame: int
    k: int | None
    r: int | None
    reason: str


@dataclass(frozen=True)
class BudgetReport:
    """State of a budget.

    Attributes:
        target: The target.
        frames: Number of frames so far.
        median: Milliseconds, over the last 100 frames; None before one was timed.
        p90: 90th percentile in milliseconds, over the same frames.
        k: Value for the next frame; None if no k is controlled.
        r: Value for the next frame; None if no r is controlled.
        missed: A message if the target cannot be held now, else None.
    """

    target: Target
    frames: int
    median: float | None
    p90: float | None
    k: int | None
    r: int | None
    missed: str | None

    def __str__(self) -> str:
        knobs = [
            f"{name}={value}" for name, value in (("k", self.k), ("r", self.r)) if value is not None
        ]
        parts = [f"target {self.target}", *knobs]
        if self.median is not None:
            parts.append(f"median {self.median:.4g} ms, p90 {self.p90:.4g} ms")
        return ", ".join(parts) + ("" if self.missed is None else f"; {self.missed}")


def middle_and_p90(times: list[float]) -> tuple[float | None, float | None]:
    """Median and 90th percentile; None for an empty list."""
    if len(times) < 2:
        return (times[0], times[0]) if times else (None, None)
    return median(times), quantiles(times, n=10, method="inclusive")[-1]
