"""A policy that weights changes by the importance of their position."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmvitaccel.arguments import number, sequence, with_methods
from mmvitaccel.core.eventful.gates.importance import Importance, Matters, ReceivedAttention
from mmvitaccel.core.eventful.gates.policy import Policy, for_one_frame, most_of


class Weighted:
    """Multiplies the errors by the tokens' importance before another policy selects.

    The factor of a token is ``floor + (1 - floor) * importance``, with the mean of the available
    importances; tokens outside the grid have factor 1. While no importance is available (for
    objects, until ``handle.saw_objects`` is called for the stream), the base selects by errors
    alone. The base sets the budget.

    It applies to transformers; in a whole detector, the other parts use the base.

    Args:
        base: The policy that selects, e.g. :class:`TopK`.
        importance: One or more importances, e.g. :class:`LastObjects`.
        floor: Factor at an importance of 0, at least 0 and below 1. With 0, positions without
            objects are never recomputed.

    Raises:
        ValueError: There is no importance, or the floor is outside this range.
    """

    def __init__(self, base: Policy, importance: Sequence[Importance], floor: float = 0.1) -> None:
        why = "give one, such as LastObjects()"
        self.base = with_methods("Weighted", "base", base, "select", why="give TopK(k) or another")
        self.importance = tuple(
            with_methods("Weighted", "importance", each, "of", why=why)
            for each in sequence("Weighted", "importance", importance, why=why)
        )
        self.floor = number("Weighted", "floor", floor, least=0, below=1)

    @property
    def attended_blocks(self) -> frozenset[int]:
        """Indices of the blocks whose attention is needed, as given."""
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
            matters: State of the stream.
            grid: (H, W) of the tokens; None if unknown.
            num_prefix_tokens: Number of tokens before these.
            shift: Offset (rows, columns) of the tokens from the patches of the frame that
                ``matters`` describes.

        Raises:
            ValueError: The grid is unknown.
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
        """Raise an error: only the policy of a frame, from :meth:`of_frame`, has the weights."""
        raise ValueError(self._refusal())

    def _refusal(self) -> str:
        return (
            f"{self!r}: importance needs the token grid of a transformer, which is missing here "
            f"(a neck, a head, or tokens that are not a whole picture); use {self.base!r}."
        )

    def most(self, num_tokens: int) -> int:
        """Largest number of ``num_tokens`` tokens that can pass."""
        return most_of(self.base, num_tokens)

    def __repr__(self) -> str:
        return f"Weighted({self.base!r}, {list(self.importance)}, floor={self.floor})"


class _Factors:
    """A base policy with the factors (N,) of one frame."""

    def __init__(self, base: Policy, factors: Tensor) -> None:
        self.base, self.factors = base, factors

    def select(self, error: Tensor) -> Tensor:
        return self.base.select(error * self.factors.to(error.device))
