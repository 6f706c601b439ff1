"""Random matchings, the controls for matchings by similarity."""

from __future__ import annotations

import torch
from torch import Tensor

from mmvitaccel.core.tome.matcher import Candidates
from mmvitaccel.core.tome.merge import Matching


def _random_split(given: Candidates) -> tuple[Tensor, Tensor]:
    """Kept tokens (B, N - r) in order, and r random others (B, r) outside the prefix.

    Uses torch's generator of the tokens' device, so runs with a seed are reproducible.
    """
    (batch, num_tokens, _), p = given.metric.shape, given.num_prefix_tokens
    order = torch.rand(batch, num_tokens - p, device=given.metric.device).argsort(dim=1) + p
    prefix = torch.arange(p, device=order.device).expand(batch, p)
    stay = order[:, given.r :].sort(dim=1).values
    return torch.cat([prefix, stay], dim=1), order[:, : given.r]


class RandomMatching:
    """Merges r random tokens into random others, without comparing tokens."""

    def match(self, given: Candidates) -> Matching:
        """Match r random tokens after the prefix with random kept tokens."""
        kept, src = _random_split(given)
        dst = torch.randint_like(src, given.num_prefix_tokens, kept.shape[1])
        return Matching(kept, src, dst)

    def __repr__(self) -> str:
        return "RandomMatching()"


class RandomDrop:
    """Drops r random tokens, a control that most token selections hardly improve on.

    See LITE on Kinetics (arXiv 2411.13626). When all tokens are restored, a dropped token gets the
    value of the preceding kept token.
    """

    def match(self, given: Candidates) -> Matching:
        """Drop r random tokens after the prefix."""
        kept, src = _random_split(given)
        before = torch.searchsorted(kept, src.contiguous()) - 1
        dst = before.clamp(min=given.num_prefix_tokens)
        return Matching(kept, src, dst, drops=True)

    def __repr__(self) -> str:
        return "RandomDrop()"
