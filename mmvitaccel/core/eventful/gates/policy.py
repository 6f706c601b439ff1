"""Policies select the tokens to recompute (Eventful Transformers, arXiv 2308.13494, section 4.1).

A policy is a class with a method ``select`` from the norms of the tokens' errors to the tokens that
pass, as an index or a mask. Any object with this method works; no base class is needed.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from mmvitaccel.arguments import number, whole_number
from mmvitaccel.core.eventful.gates.selection import Selection, from_mask


class Policy(Protocol):
    """Protocol: selects tokens by their errors, the distances to their references."""

    def select(self, error: Tensor) -> Tensor:
        """Select the tokens that pass.

        Args:
            error: (B, N) float32, the Euclidean norm of each token's error.

        Returns:
            Index (B, k) int64 without duplicates in a row, or mask (B, N) bool.
        """


def most_of(policy: Policy, num_tokens: int) -> int:
    """Largest number of ``num_tokens`` tokens that can pass, from the policy's method ``most``.

    For policies without this method, all tokens may pass.
    """
    return policy.most(num_tokens) if hasattr(policy, "most") else num_tokens


def frames_for_all(policy: Policy, num_tokens: int) -> int:
    """Number of frames until every token can have passed, ceil(N / k); 1 if k is unknown."""
    return -(-num_tokens // max(most_of(policy, num_tokens), 1))


class TopK:
    """Selects the k tokens with the largest errors, at the same cost in every frame.

    Args:
        k: Number of tokens that pass. If it is larger than the number of tokens, all pass, with one
            warning.

    Raises:
        ValueError: k is below 1.
    """

    def __init__(self, k: int) -> None:
        self._warned: list[int] = []  # shared with copies, so that there is only one warning
        self.k = k

    @property
    def k(self) -> int:
        """Number of tokens that pass; a new value applies from the next frame on."""
        return self._k

    @k.setter
    def k(self, value: int) -> None:
        why = "without any token, the output would never change"
        self._k = whole_number("TopK", "k", value, least=1, of="tokens", why=why)

    def select(self, error: Tensor) -> Tensor:
        """(B, N) -> (B, min(k, N)) int64."""
        num_tokens = error.shape[1]
        if self.k > num_tokens and not self._warned:
            self._warned.append(self.k)
            warnings.warn(
                f"TopK: k={self.k} but the frame has {num_tokens} tokens; all of them pass.",
                stacklevel=2,
            )
        return error.topk(min(self.k, num_tokens), dim=1, sorted=False).indices

    def most(self, num_tokens: int) -> int:
        """Largest number of ``num_tokens`` tokens that can pass."""
        return min(self.k, num_tokens)

    def with_budget(self, k: int, num_tokens: int) -> TopK:
        """The same policy, with k tokens let through."""
        changed = copy.copy(self)
        changed.k = k
        return changed

    def __repr__(self) -> str:
        return f"TopK(k={self.k})"


class TopFraction:
    """Selects a fraction of the tokens, rounded up, with the largest errors.

    Args:
        fraction: Share of the tokens, above 0 and at most 1.

    Raises:
        ValueError: The fraction is outside that range.
    """

    def __init__(self, fraction: float) -> None:
        self.fraction = fraction

    @property
    def fraction(self) -> float:
        """Share of the tokens that pass; a new value applies from the next frame on."""
        return self._fraction

    @fraction.setter
    def fraction(self, value: float) -> None:
        self._fraction = number("TopFraction", "fraction", value, above=0, most=1)

    def select(self, error: Tensor) -> Tensor:
        """(B, N) -> (B, ceil(fraction * N)) int64."""
        return error.topk(self.most(error.shape[1]), dim=1, sorted=False).indices

    def most(self, num_tokens: int) -> int:
        """Largest number of ``num_tokens`` tokens that can pass."""
        return math.ceil(self.fraction * num_tokens)

    def with_budget(self, k: int, num_tokens: int) -> TopFraction:
        """The same policy, with k of that many tokens let through."""
        changed = copy.copy(self)
        changed.fraction = (k - 0.5) / num_tokens  # which rounding does not raise above k
        return changed

    def __repr__(self) -> str:
        return f"TopFraction(fraction={self.fraction})"


class Threshold:
    """Selects the tokens with an error above a threshold; their number depends on the video.

    Args:
        threshold: Norm of the error, in the unit of the tokens; at least 0.
        at_most: Upper limit; of more tokens, those with the largest errors pass. None for no limit.

    Raises:
        ValueError: The threshold is negative or not a number, or ``at_most`` is below 1.
    """

    def __init__(self, threshold: float, at_most: int | None = None) -> None:
        self.threshold = threshold
        self.at_most = at_most

    @property
    def threshold(self) -> float:
        """Threshold of the errors; a new value applies from the next frame on."""
        return self._threshold

    @threshold.setter
    def threshold(self, value: float) -> None:
        self._threshold = number("Threshold", "threshold", value, least=0, or_infinite=True)

    @property
    def at_most(self) -> int | None:
        """Upper limit of the number of tokens; a new value applies from the next frame on."""
        return self._at_most

    @at_most.setter
    def at_most(self, value: int | None) -> None:
        self._at_most = whole_number(
            "Threshold", "at_most", value, least=1, of="tokens", or_none=True
        )

    def select(self, error: Tensor) -> Tensor:
        """(B, N) -> (B, N) bool."""
        # Negated, so that tokens with NaN errors pass
        above = (error <= self.threshold).logical_not()
        most = self.most(error.shape[1])
        if most == error.shape[1]:
            return above
        largest = error.topk(most, dim=1, sorted=False).indices
        return torch.zeros_like(above).scatter_(1, largest, above.gather(1, largest))

    def most(self, num_tokens: int) -> int:
        """Largest number of ``num_tokens`` tokens that can pass."""
        return num_tokens if self.at_most is None else min(self.at_most, num_tokens)

    def __repr__(self) -> str:
        cap = "" if self.at_most is None else f", at_most={self.at_most}"
        return f"Threshold(threshold={self.threshold}{cap})"


class Always:
    """Selects all tokens in every frame: the dense model in the eventful code path."""

    def select(self, error: Tensor) -> Tensor:
        """(B, N) -> (B, N) int64."""
        return torch.arange(error.shape[1], device=error.device).expand_as(error)

    def __repr__(self) -> str:
        return "Always()"


#: Stateless policies whose budget can be changed.
COPIED: set[type] = {TopK, TopFraction, Threshold}


def for_one_frame(policy: Policy) -> Policy:
    """A copy of the policy, because another thread may change its budget during the frame.

    Other policies are not copied, because they may have state.
    """
    return copy.copy(policy) if type(policy) in COPIED else policy


def choose(policy: Policy, error: Tensor) -> Selection:
    """Call a policy and check its answer.

    Args:
        policy: The policy.
        error: (B, N) norms.

    Raises:
        TypeError: The answer is neither an index nor a mask.
        ValueError: The answer's shape is wrong, or it has more tokens than there are.
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
    """A call of a policy by a gate.

    Attributes:
        policy: The policy of the stream's frame.
        error: (B, N) norms.
    """

    policy: Policy
    error: Tensor


def choose_for_all(asked: Sequence[Gated]) -> list[Selection]:
    """Call the policies of several streams' frames at the same gate, with equal numbers of tokens.

    A policy with a true attribute ``shared`` is called once for all frames that have it, and may
    select different numbers for different streams; other policies are called for each frame.

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
