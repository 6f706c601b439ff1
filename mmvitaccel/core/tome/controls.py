"""Matchings at random: the controls that a matching by similarity has to beat."""

from __future__ import annotations

import torch
from torch import Tensor

from mmvitaccel.core.tome.matcher import Candidates
from mmvitaccel.core.tome.merge import Matching


def _random_split(given: Candidates) -> tuple[Tensor, Tensor]:
    """Tokens that stay (B, N - r), in their order, and r others (B, r), none of the prefix.

    They are drawn from torch's generator of the tokens' device, so that a seed repeats a run.
    """
    (batch, num_tokens, _), p = given.metric.shape, given.num_prefix_tokens
    order = torch.rand(batch, num_tokens - p, device=given.metric.device).argsort(dim=1) + p
    prefix = torch.arange(p, device=order.device).expand(batch, p)
    stay = order[:, given.r :].sort(dim=1).values
    return torch.cat([prefix, stay], dim=1), order[:, : given.r]


class RandomMatching:
    """r tokens at random merge into others at random, at the cost of comparing none."""

    def match(self, given: Candidates) -> Matching:
        """Any r tokens behind the prefix, and any of those that stay."""
        kept, src = _random_split(given)
        dst = torch.randint_like(src, given.num_prefix_tokens, kept.shape[1])
        return Matching(kept, src, dst)

    def __repr__(self) -> str:
        return "RandomMatching()"


class RandomDrop:
    """r tokens at random are dropped, which most ways to select tokens hardly beat.

    So LITE found on Kinetics (arXiv 2411.13626). Where all tokens come back, a dropped one has the
    value of the one before it that was kept.
    """

    def match(self, given: Candidates) -> Matching:
        """Any r tokens behind the prefix."""
        kept, src = _random_split(given)
        before = torch.searchsorted(kept, src.contiguous()) - 1
        dst = before.clamp(min=given.num_prefix_tokens)
        return Matching(kept, src, dst, drops=True)

    def __repr__(self) -> str:
        return "RandomDrop()"
