"""Random tokens, the control for policies."""

from __future__ import annotations

import torch
from torch import Tensor

from mmvitaccel.arguments import whole_number


class RandomTokens:
    """Selects k random tokens regardless of their errors, at the cost of :class:`TopK`.

    This is a control: a useful policy is better. It uses torch's generator of the tokens' device,
    so runs with a seed are reproducible.

    Args:
        k: Number of tokens that pass; all if it is larger than their number.

    Raises:
        ValueError: k is below 1.
    """

    def __init__(self, k: int) -> None:
        self.k = whole_number("RandomTokens", "k", k, least=1, of="tokens")

    def select(self, error: Tensor) -> Tensor:
        """(B, N) -> (B, min(k, N)) int64."""
        return torch.rand_like(error).topk(self.most(error.shape[1]), dim=1).indices

    def most(self, num_tokens: int) -> int:
        """Largest number of ``num_tokens`` tokens that can pass."""
        return min(self.k, num_tokens)

    def __repr__(self) -> str:
        return f"RandomTokens(k={self.k})"
