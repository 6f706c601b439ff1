"""Which tokens are worth computing (Eventful Transformers, arXiv 2308.13494, section 4.1).

A policy is a class with one method, ``select``: norms of the tokens' errors in, the tokens to let
through out, as an index or as a mask. Any object with that method works; no base class is needed.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from mmvitaccel.core.eventful.gates.selection import Selection, from_mask


class Policy(Protocol):
    """Chooses tokens by how far they are from what was last let through."""

    def select(self, error: Tensor) -> Tensor:
        """Choose.

        Args:
            error: (B, N) float32, the Euclidean norm of each token's error.

        Returns:
            (B, k) int64 with different tokens in a row, or (B, N) bool.
        """


def most_of(policy: Policy, num_tokens: int) -> int:
    """The most tokens that a policy lets through of so many, as its method ``most`` says.

    A policy of somebody else's need not have that method; it may let all of them through.
    """
    return policy.most(num_tokens) if hasattr(policy, "most") else num_tokens


def frames_for_all(policy: Policy, num_tokens: int) -> int:
    """Frames in which a policy lets every token pass once, ceil(N / k); 1 where nobody knows k."""
    return -(-num_tokens // max(most_of(policy, num_tokens), 1))


class TopK:
    """The k tokens with the largest errors; costs the same every frame.

    Args:
        k: Tokens let through; more than there are means all, which is said once.

    Raises:
        ValueError: k is below 1.
    """

    def __init__(self, k: int) -> None:
        self._warned: list[int] = []  # shared with copies, so that it is said once for all of them
        self.k = k

    @property
    def k(self) -> int:
        """Tokens let through; a new value holds from the next frame on."""
        return self._k

    @k.setter
    def k(self, value: int) -> None:
        if isinstance(value, bool) or int(value) != value or value < 1:
            raise ValueError(
                f"TopK: k={value!r} must be a whole number of tokens, at least 1; a frame that "
                "lets no token through would never change."
            )
        self._k = int(value)

    def select(self, error: Tensor) -> Tensor:
        """(B, N) -> (B, min(k, N)) int64."""
        num_tokens = error.shape[1]
        if self.k > num_tokens and not self._warned:
            self._warned.append(self.k)
            warnings.warn(
                f"TopK: k={self.k} but the frame has {num_tokens} tokens; all are let through.",
                stacklevel=2,
            )
        return error.topk(min(self.k, num_tokens), dim=1, sorted=False).indices

    def most(self, num_tokens: int) -> int:
        """The most tokens that are let through of so many."""
        return min(self.k, num_tokens)

    def __repr__(self) -> str:
        return f"TopK(k={self.k})"


class TopFraction:
    """The given share of the tokens, rounded up, by largest error.

    Args:
        fraction: Above 0, at most 1.

    Raises:
        ValueError: The fraction is outside that range.
    """

    def __init__(self, fraction: float) -> None:
        self.fraction = fraction

    @property
    def fraction(self) -> float:
        """Share of the tokens let through; a new value holds from the next frame on."""
        return self._fraction

    @fraction.setter
    def fraction(self, value: float) -> None:
        if not 0 < value <= 1:
            raise ValueError(f"TopFraction: fraction={value!r} must be above 0 and at most 1.")
        self._fraction = float(value)

    def select(self, error: Tensor) -> Tensor:
        """(B, N) -> (B, ceil(fraction * N)) int64."""
        return error.topk(self.most(error.shape[1]), dim=1, sorted=False).indices

    def most(self, num_tokens: int) -> int:
        """The most tokens that are let through of so many."""
        return math.ceil(self.fraction * num_tokens)

    def __repr__(self) -> str:
        return f"TopFraction(fraction={self.fraction})"


class Threshold:
    """Every token whose error is above a threshold; how many there are follows the video.

    Args:
        threshold: Norm of the error, in the tokens' own unit; at least 0.
        at_most: Of more tokens than this, those with the largest errors; None for all.

    Raises:
        ValueError: The threshold is negative or no number, or ``at_most`` is below 1.
    """

    def __init__(self, threshold: float, at_most: int | None = None) -> None:
        self.threshold = threshold
        self.at_most = at_most

    @property
    def threshold(self) -> float:
        """Errors above it are let through; a new value holds from the next frame on."""
        return self._threshold

    @threshold.setter
    def threshold(self, value: float) -> None:
        if not value >= 0:
            raise ValueError(f"Threshold: threshold={value!r} must be a number, at least 0.")
        self._threshold = float(value)

    @property
    def at_most(self) -> int | None:
        """The most tokens let through; a new value holds from the next frame on."""
        return self._at_most

    @at_most.setter
    def at_most(self, value: int | None) -> None:
        if value is not None and (isinstance(value, bool) or int(value) != value or value < 1):
            raise ValueError(
                f"Threshold: at_most={value!r} must be a whole number of tokens, at least 1, or "
                "None."
            )
        self._at_most = None if value is None else int(value)

    def select(self, error: Tensor) -> Tensor:
        """(B, N) -> (B, N) bool."""
        # reason: negated, so that a token whose error is not a number is let through.
        above = (error <= self.threshold).logical_not()
        most = self.most(error.shape[1])
        if most == error.shape[1]:
            return above
        largest = error.topk(most, dim=1, sorted=False).indices
        return torch.zeros_like(above).scatter_(1, largest, above.gather(1, largest))

    def most(self, num_tokens: int) -> int:
        """The most tokens that are let through of so many."""
        return num_tokens if self.at_most is None else min(self.at_most, num_tokens)

    def __repr__(self) -> str:
        cap = "" if self.at_most is None else f", at_most={self.at_most}"
        return f"Threshold(threshold={self.threshold}{cap})"


class Always:
    """Every token, every frame: the dense model by the eventful path."""

    def select(self, error: Tensor) -> Tensor:
        """(B, N) -> (B, N) int64."""
        return torch.arange(error.shape[1], device=error.device).expand_as(error)

    def __repr__(self) -> str:
        return "Always()"


#: Policies whose budget may be set from outside, and that remember nothing of what they are asked.
COPIED: set[type] = {TopK, TopFraction, Threshold}


def for_one_frame(policy: Policy) -> Policy:
    """The policy as it is now: another thread may set a budget while the frame is computed.

    A policy of somebody else's is taken as it is; it may remember what it is asked.
    """
    return copy.copy(policy) if type(policy) in COPIED else policy


def choose(policy: Policy, error: Tensor) -> Selection:
    """Ask a policy, and check what it says.

    Args:
        policy: The policy.
        error: (B, N) norms.

    Raises:
        TypeError: The answer is neither an index nor a mask.
        ValueError: Its shape does not fit, or it names more tokens than there are.
    """
    name, (batch, num_tokens) = type(policy).__name__, error.shape
    answer = policy.select(error)
    if not isinstance(answer, Tensor) or answer.dtype not in (torch.int64, torch.bool):
        kind = answer.dtype if isinstance(answer, Tensor) else type(answer).__name__
        raise TypeError(
            f"{name}.select returned {kind}; return an int64 index (B, k) or a bool mask (B, N)."
        )
    if answer.dtype == torch.bool:
        if answer.shape != error.shape:
            raise ValueError(
                f"{name}.select returned a mask {tuple(answer.shape)} for errors "
                f"{tuple(error.shape)}; the two must have the same shape."
            )
        return from_mask(answer)
    if answer.ndim != 2 or answer.shape[0] != batch or answer.shape[1] > num_tokens:
        raise ValueError(
            f"{name}.select returned an index {tuple(answer.shape)} for errors "
            f"{tuple(error.shape)}; return (B, k) with k at most {num_tokens}."
        )
    if answer.shape[1] == num_tokens:
        answer = torch.arange(num_tokens, device=error.device).expand(batch, num_tokens)
    return Selection(answer, num_tokens)


class Gated(NamedTuple):
    """What a gate asks a policy.

    Attributes:
        policy: The policy of the stream's frame.
        error: (B, N) norms.
    """

    policy: Policy
    error: Tensor


def choose_for_all(asked: Sequence[Gated]) -> list[Selection]:
    """Ask the policies of several streams' frames at the same gate, with as many tokens each.

    A policy whose attribute ``shared`` is true is asked once for all frames that have it, and
    its answer may give one stream more than another; any other is asked for each.

    Raises:
        TypeError: See :func:`choose`.
        ValueError: See :func:`choose`.
    """
    chosen: dict[int, Selection] = {}
    shared: dict[int, list[int]] = {}
    for place, (policy, error) in enumerate(asked):
        if getattr(policy, "shared", False):
            shared.setdefault(id(policy), []).append(place)
        else:
            chosen[place] = choose(policy, error)
    for places in shared.values():
        errors = [asked[place].error for place in places]
        whole = choose(asked[places[0]].policy, torch.cat(errors))
        if len(places) == 1:
            chosen[places[0]] = whole
        else:
            chosen.update(zip(places, whole.split()))
    return [chosen[place] for place in range(len(asked))]
