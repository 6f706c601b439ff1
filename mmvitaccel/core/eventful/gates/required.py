"""A policy's choice beside tokens that must pass, such as those that came into view."""

from __future__ import annotations

import torch
from torch import Tensor

from mmvitaccel.core.eventful.gates.policy import Policy


class Required:
    """What another policy chooses, with some tokens first.

    They take the places of others that it would choose; where they are more than it lets through,
    they pass all the same.

    Args:
        base: Chooses.
        tokens: (N,) bool, those that must pass.
        count: How many these are.
    """

    def __init__(self, base: Policy, tokens: Tensor, count: int) -> None:
        self.base, self.tokens, self.count = base, tokens, count

    def select(self, error: Tensor) -> Tensor:
        """(B, N) to what the base gives: (B, k) int64, or (B, N) bool."""
        # reason: the base then takes them first by itself, if it chooses by errors
        answer = self.base.select(error.masked_fill(self.tokens, torch.inf))
        if answer.dtype == torch.bool:
            return answer | self.tokens
        rank = self.tokens.to(error.dtype).expand_as(error) * 2
        rank = rank.scatter_add(1, answer, torch.ones_like(answer, dtype=error.dtype))
        most = max(answer.shape[1], self.count)
        return rank.topk(most, dim=1, sorted=False).indices
