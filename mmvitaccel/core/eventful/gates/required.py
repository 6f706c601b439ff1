"""A policy with tokens that must pass, such as those that are new in the view."""

from __future__ import annotations

import torch
from torch import Tensor

from mmvitaccel.core.eventful.gates.policy import Policy


class Required:
    """Selection of another policy that always includes some tokens.

    They replace other tokens of the selection. If there are more of them than the budget of the
    base, all of them pass.

    Args:
        base: The wrapped policy.
        tokens: (N,) bool, the tokens that must pass.
        count: Number of these tokens.
    """

    def __init__(self, base: Policy, tokens: Tensor, count: int) -> None:
        self.base, self.tokens, self.count = base, tokens, count

    def select(self, error: Tensor) -> Tensor:
        """(B, N) -> (B, k) int64 or (B, N) bool, like the base."""
        # A base that selects by errors then takes them first
        answer = self.base.select(error.masked_fill(self.tokens, torch.inf))
        if answer.dtype == torch.bool:
            return answer | self.tokens
        rank = self.tokens.to(error.dtype).expand_as(error) * 2
        rank = rank.scatter_add(1, answer, torch.ones_like(answer, dtype=error.dtype))
        most = max(answer.shape[1], self.count)
        return rank.topk(most, dim=1, sorted=False).indices
