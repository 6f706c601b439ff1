"""Options of a run over videos: budgets that change, bounds and the least score."""

from __future__ import annotations

from collections.abc import Sequence

from mmvitaccel.budget.target import Target
from mmvitaccel.errors import UserError


def parse_budget(text: str, option: str = "--budget") -> Target:
    """Parse a budget.

    Raises:
        UserError: The text is not a budget.
    """
    try:
        return Target.parse(text)
    except ValueError as error:
        raise UserError(f"{option}: {str(error).removeprefix('Budget: ')}") from error


def parse_schedule(text: str) -> dict[int, Target]:
    """Parse a schedule such as ``0:200ms,100:80ms``: budgets by the frame from which they hold.

    Raises:
        UserError: The text is not a schedule, or does not begin with frame 0.
    """
    schedule: dict[int, Target] = {}
    for part in text.split(","):
        frame, colon, budget = part.strip().partition(":")
        if not colon or not frame.isdecimal() or int(frame) in schedule:
            raise UserError(
                f"--budget-schedule {text!r}: {part.strip()!r} is not FRAME:BUDGET, or repeats a "
                "frame; give for instance 0:200ms,100:80ms."
            )
        schedule[int(frame)] = parse_budget(budget, "--budget-schedule")
    if 0 not in schedule:
        raise UserError(
            f"--budget-schedule {text!r} has no budget for the first frame; begin with 0:."
        )
    return schedule


def check_bounds(bounds: Sequence[int] | None, has_budget: bool) -> tuple[int, int] | None:
    """Check the option ``--bounds``, and return it.

    Raises:
        UserError: They are not in order, or there is no budget whose k they would limit.
    """
    if bounds is None:
        return None
    low, high = bounds
    if not 1 <= low <= high:
        raise UserError(f"--bounds {low} {high}: give two values, 1 <= lowest <= highest.")
    if not has_budget:
        raise UserError(
            f"--bounds {low} {high} limit the k of a budget, and there is none; give --budget, or "
            "leave --bounds out."
        )
    return low, high


def check_score(score: float) -> float:
    """Check the option ``--score``, and return it.

    Raises:
        UserError: It is not from 0 to 1.
    """
    if not 0 <= score <= 1:
        raise UserError(f"--score {score:g}: give the least score of a detection, from 0 to 1.")
    return score


def scaled(target: Target, factor: float) -> Target:
    """A target ``factor`` times as costly; a share stays at most 1."""
    value = target.value / factor if target.kind == "fps" else target.value * factor
    return Target(target.kind, min(value, 1.0) if target.kind == "share" else value)
