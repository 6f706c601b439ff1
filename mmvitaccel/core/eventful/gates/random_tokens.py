"""Random tokens: the control that a policy has to beat."""

from __future__ import annotations

import torch
from torch import Tensor


class RandomTokens:
    """k tokens at random, whatever their errors; costs what :class:`TopK` costs.

    A selection by error is worth something only as far as it does better than this. It draws from
    torch's generator of the tokens' device, so that a seed repeats a run.

    Args:
        k: Tokens let through; more than there are means all.

    Raises:
        ValueError: k is below 1.
    """

    def __init__(self, k: int) -> None:
        if isinstance(k, bool) or int(k) != k or k < 1:
            raise ValueError(f"RandomTokens: k={k!r} must be a whole number of tokens, at least 1.")
        self.k = int(k)

    def select(self, error: Tensor) -> Tensor:
        """(B, N) -> (B, min(k, N)) int64."""
        return torch.rand_like(error).topk(self.most(error.shape[1]), dim=1).indices

    def most(self, num_tokens: int) -> int:
        """The most tokens that are let through of so many."""
        return min(self.k, num_tokens)

    def __repr__(self) -> str:
        return f"RandomTokens(k={self.k})"
