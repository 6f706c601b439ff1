"""The parameters that a budget controls: the k of an eventful policy, the r of ToMe.

The level of a knob is an integer; a higher one costs more.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any, NamedTuple, Union

from mmvitaccel.adapters.eventful.detector import EventfulDetectorHandle
from mmvitaccel.adapters.eventful.handle import StreamHandle
from mmvitaccel.adapters.tome.handle import ToMeHandle
from mmvitaccel.arguments import refuse

Handle = Union[StreamHandle, EventfulDetectorHandle, ToMeHandle]


class Seen(NamedTuple):
    """Properties of the last call of a model.

    Attributes:
        call: A different object for each call.
        pattern: Calls of one pattern cost the same at one level.
        dense: Calls with the same value cost the same without the method, at any level.
        whole: Whether the level had no influence.
        num_tokens: Tokens of an image; the level that computes everything.
    """

    call: Any
    pattern: tuple[int, ...]
    dense: tuple[int, ...]
    whole: bool
    num_tokens: int


class KKnob:
    """k of the policy of a model with streams; the level is k.

    Args:
        handle: Its policy is a :class:`~mmvitaccel.TopK` or another with a ``k``.
        bounds: Lowest and highest k.

    Attributes:
        low: Lowest level.
        high: Highest level.
        origin: The level at which a frame would cost nothing if its cost followed the level.

    Raises:
        ValueError: The policy has no k, or the bounds are invalid.
    """

    name = "k"
    origin = 0

    def __init__(self, handle: StreamHandle, bounds: Any) -> None:
        self.handle = handle
        self.low, self.high = checked_bounds("k", bounds, 1)
        self._policy()

    @property
    def level(self) -> int:
        """Where it stands."""
        return int(self._policy().k)

    def turn(self, level: int) -> None:
        """Let the next frame be computed with this level."""
        self._policy().k = level

    def value(self, level: int) -> int:
        """The k of a level."""
        return level

    def everything(self, seen: Seen | None) -> int | None:
        """The level that leaves nothing out; None before a call."""
        return None if seen is None else seen.num_tokens

    def look(self) -> Seen | None:
        """The last call; None before the first. Waits for no device."""
        frames = self.handle.uncounted_frames
        if not frames:
            return None
        first = sum(frame.first or frame.refreshed for frame in frames)
        dense = (frames[0].num_tokens, len(frames))
        return Seen(frames[0], (*dense, first), dense, first == len(frames), dense[0])

    def _policy(self) -> Any:
        policy = with_k(self.handle.policy)
        if policy is None:
            raise ValueError(
                f"Budget: the policy {self.handle.policy!r} has no k to set; give the model a "
                "TopK, `handle.policy = TopK(k)`."
            )
        return policy


class RKnob:
    """r of ToMe; the level is -r.

    Args:
        handle: Its r is a number of tokens.
        bounds: Lowest and highest r.

    Attributes:
        low: Lowest level, the highest r.
        high: Highest level.
        origin: The level at which a frame would cost nothing if its cost followed the level.

    Raises:
        ValueError: r is not a number of tokens, or the bounds are invalid.
    """

    name = "r"

    def __init__(self, handle: ToMeHandle, bounds: Any) -> None:
        self.handle = handle
        low, high = checked_bounds("r", bounds, 0)
        self.low, self.high, self.origin = -high, -low, -high - 1
        if isinstance(handle.r, bool) or not isinstance(handle.r, Integral):
            raise ValueError(
                f"Budget: ToMe's r={handle.r!r} is not a number of tokens that is the same in "
                f"each block, which a budget needs; set handle.r to an int."
            )

    @property
    def level(self) -> int:
        """Where it stands."""
        return -self.handle.r

    def turn(self, level: int) -> None:
        """Let the next frame be computed with this level."""
        if self.handle.r != -level:
            self.handle.r = -level

    def value(self, level: int) -> int:
        """The r of a level."""
        return -level

    def everything(self, seen: Seen | None) -> int:
        """The level that leaves nothing out."""
        return 0

    def look(self) -> Seen | None:
        """The last call; None before the first. Waits for no device."""
        tokens = self.handle.tokens
        if not tokens:
            return None
        size = (tokens[0] - self.level,)
        return Seen(tokens, size, size, False, size[0])


def with_k(policy: Any) -> Any:
    """The policy with a k: the given one, or its base (:class:`~mmvitaccel.Weighted`).

    None if neither has a k.
    """
    while not hasattr(policy, "k"):
        if not hasattr(policy, "base"):
            return None
        policy = policy.base
    return policy


def sorted_handles(handle: Handle | Sequence[Handle]) -> list[Handle]:
    """The handles, with that of a method with streams first."""
    given = list(handle) if isinstance(handle, (list, tuple)) else [handle]
    if not given:
        refuse("Budget", "handle", handle, "what apply_eventful or apply_tome returned, or both")
    handles = [
        next(iter(h.parts.values())) if isinstance(h, EventfulDetectorHandle) else h for h in given
    ]
    wrong = [h for h in handles if not isinstance(h, (StreamHandle, ToMeHandle))]
    if wrong:
        raise TypeError(
            f"Budget: a value of type {type(wrong[0]).__name__} is not a handle; give the handle "
            "that apply_eventful, apply_eventful_neck or apply_tome returned."
        )
    streams = [h for h in handles if isinstance(h, StreamHandle)]
    tomes = [h for h in handles if isinstance(h, ToMeHandle)]
    if len(streams) > 1 or len(tomes) > 1:
        raise ValueError(
            f"Budget: got {len(streams)} handles with a k and {len(tomes)} of ToMe; give one "
            f"handle, or one of each kind."
        )
    return streams + tomes


def make_knobs(
    handles: Sequence[Handle], k: Any, r: Any, left_out: float | None
) -> list[KKnob | RKnob]:
    """Make a knob for each handle.

    Raises:
        ValueError: Invalid bounds, or bounds or a limit for a method without a handle.
    """
    knobs = [KKnob(h, k) if isinstance(h, StreamHandle) else RKnob(h, r) for h in handles]
    there = {knob.name for knob in knobs}
    for name, value in (("k", k), ("r", r)):
        if value is not None and name not in there:
            method = "Eventful" if name == "k" else "ToMe"
            raise ValueError(f"Budget: {name}={value!r} but no handle of {method} was given.")
    if left_out is not None and "k" not in there:
        raise ValueError(
            f"Budget: left_out={left_out!r} is a limit for Eventful only; ToMe leaves nothing out."
        )
    return knobs


def checked_bounds(name: str, bounds: Any, least: int) -> tuple[int, int]:
    """Check that the bounds are two whole numbers in order.

    Raises:
        ValueError: They are not.
    """
    pair = tuple(bounds) if isinstance(bounds, (list, tuple)) else ()
    whole = all(isinstance(value, Integral) and not isinstance(value, bool) for value in pair)
    if len(pair) != 2 or not whole or not least <= pair[0] <= pair[1]:
        allowed = f"two whole numbers, (lowest, highest), from {least} on"
        refuse("Budget", name, bounds, allowed)
    return int(pair[0]), int(pair[1])
