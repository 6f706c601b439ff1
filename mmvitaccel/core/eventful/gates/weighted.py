"""A policy for which a change counts as much as the place in which it happens matters."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmvitaccel.core.eventful.gates.importance import Importance, Matters, ReceivedAttention
from mmvitaccel.core.eventful.gates.policy import Policy, for_one_frame, most_of


class Weighted:
    """Another policy's choice by errors that are multiplied by the tokens' importance.

    The factor of a token is ``floor + (1 - floor) * importance``, with the mean of the importances
    that are known; tokens that are not on the grid have 1. As long as nothing is known, which of
    objects is until ``handle.saw_objects`` is called for the stream, the base chooses by errors
    alone. The budget is the base's.

    It serves transformers; in a whole detector the other parts take the base.

    Args:
        base: Chooses, e.g. :class:`TopK`.
        importance: Say how much tokens matter, e.g. :class:`LastObjects`.
        floor: Factor where nothing matters, at least 0 and below 1; at 0 a place without objects
            is never looked at, however much it changes.

    Raises:
        ValueError: There is no importance, or the floor is outside that range.
    """

    def __init__(self, base: Policy, importance: Sequence[Importance], floor: float = 0.1) -> None:
        if not importance:
            raise ValueError("Weighted: importance=[] is empty; give one, such as LastObjects().")
        if not 0 <= floor < 1:
            raise ValueError(f"Weighted: floor={floor!r} must be at least 0 and below 1.")
        self.base, self.importance, self.floor = base, tuple(importance), float(floor)

    @property
    def attended_blocks(self) -> frozenset[int]:
        """The blocks whose attention is asked for, as they were given."""
        found = (i.block for i in self.importance if isinstance(i, ReceivedAttention))
        return frozenset(found)

    def of_frame(
        self,
        matters: Matters,
        grid: tuple[int, int] | None,
        num_prefix_tokens: int,
        shift: tuple[int, int] = (0, 0),
    ) -> Policy:
        """The policy of one frame of one stream.

        Args:
            matters: What the stream remembers.
            grid: (H, W) of the tokens; None where nobody knows.
            num_prefix_tokens: Tokens before these.
            shift: Rows and columns by which tokens lie further than their patches in the frame of
                which ``matters`` tells.

        Raises:
            ValueError: The grid is not known.
        """
        if grid is None:
            raise ValueError(self._refusal())
        base = for_one_frame(self.base)
        known = [found for i in self.importance if (found := i.of(matters, grid)) is not None]
        if not known:
            return base
        mean = torch.stack(known).mean(0).roll(shift, (0, 1))
        factors = (self.floor + (1 - self.floor) * mean).flatten()
        return _Factors(base, torch.cat((factors.new_ones(num_prefix_tokens), factors)))

    def select(self, error: Tensor) -> Tensor:
        """Refused: only a frame's own policy, of :meth:`of_frame`, knows what matters."""
        raise ValueError(self._refusal())

    def _refusal(self) -> str:
        return (
            f"{self!r}: what matters is known on the grid of a transformer's tokens, and here is "
            f"none (a neck, a head, or tokens that are no whole picture); use {self.base!r}."
        )

    def most(self, num_tokens: int) -> int:
        """The most tokens that are let through of so many."""
        return most_of(self.base, num_tokens)

    def __repr__(self) -> str:
        return f"Weighted({self.base!r}, {list(self.importance)}, floor={self.floor})"


class _Factors:
    """A base with the factors (N,) of one frame."""

    def __init__(self, base: Policy, factors: Tensor) -> None:
        self.base, self.factors = base, factors

    def select(self, error: Tensor) -> Tensor:
        return self.base.select(error * self.factors.to(error.device))
