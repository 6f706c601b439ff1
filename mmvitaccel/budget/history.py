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
        target: What it was to cost.
        k: Tokens let through; None where no k is set.
        r: Tokens merged in each block; None where no r is set.
        images: Into how many images the cost was divided. Set it inside the block where it is
            known there only.
        milliseconds: Of an image; None of a frame whose multiply-adds were counted, which takes
            longer.
        macs: Multiply-adds of an image, counted or predicted; None under a target in time, and
            where nothing is known yet.
        whole: Whether every image was computed whole, as the first one of a stream is.
        left_out: What the frame left out; None unless a limit was given.
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
    """A change.

    Attributes:
        frame: Number of the first frame that it holds for.
        k: From then on; None where no k is set.
        r: From then on; None where no r is set.
        reason: Why.
    """

    frame: int
    k: int | None
    r: int | None
    reason: str


@dataclass(frozen=True)
class BudgetReport:
    """Where a budget stands.

    Attributes:
        target: What is to be held.
        frames: Frames so far.
        median: Milliseconds, over the last 100 frames; None before one was timed.
        p90: The same, of nine frames in ten.
        k: Of the next frame; None where no k is set.
        r: Of the next frame; None where no r is set.
        missed: A sentence, if the target cannot be held now; else None.
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
