"""Merge what is similar enough: the number follows the picture."""

from __future__ import annotations

import torch
from torch import Tensor

from mmvitaccel.core.tome.matcher import Candidates
from mmvitaccel.core.tome.merge import (
    Matching,
    comparable,
    first_of_sets,
    places_of,
    ranked,
)


class Threshold:
    """ToMe's edges, of which those merge whose cosine reaches a threshold, r of them at most.

    The number so follows the picture, as in ATM (arXiv 2505.15160), which has a threshold for each
    layer; here it is one for all. In a batch every image keeps its own number: shorter ones
    end in places that hold nothing (size 0) and that no token attends to, so that an image alone
    and in a batch merge the same. A fraction as r is one of the longest image's tokens.

    How many tokens are left has to be known before the next layer runs, so that each block waits
    once for the device.

    Args:
        similarity: Cosine from which two tokens merge, within [-1, 1].

    Raises:
        ValueError: The similarity is outside.
    """

    def __init__(self, similarity: float = 0.9) -> None:
        if not -1 <= similarity <= 1:
            raise ValueError(f"Threshold: similarity={similarity} must be within [-1, 1].")
        self.similarity = similarity

    def match(self, given: Candidates) -> Matching | None:
        """Edges above the threshold, the best first."""
        p, present = given.num_prefix_tokens, given.size[..., 0] > 0
        first_a, first_b = first_of_sets(p)
        best, edge = self._edges(given.metric, present, first_a, first_b)
        order = ranked(best)
        most = ((present.sum(1) - p) // 2).clamp(max=given.r)
        counts = (best >= self.similarity).sum(1).minimum(most)  # (B,)
        goes = torch.arange(best.shape[1], device=order.device) < counts[:, None]
        src = first_a + 2 * order
        present = present.scatter(1, src, present.gather(1, src) & ~goes)
        left = present.sum(1)
        # reason: the one read of a block
        longest, shortest, left_most, left_least = torch.stack(
            [counts.max(), counts.min(), left.max(), left.min()]
        ).tolist()
        if longest == 0:
            return None
        kept = self._kept(counts, present, p, left_most)
        place = places_of(kept, present.shape[1])
        src, target = src[:, :longest], first_b + 2 * edge.gather(1, order[:, :longest])
        dst = place.gather(1, target)
        if longest == shortest and left_most == left_least == present.shape[1] - longest:
            return Matching(kept, src, dst)
        return Matching(kept, src, dst, goes[:, :longest], present.shape[1])

    @staticmethod
    def _edges(
        metric: Tensor, present: Tensor, first_a: int, first_b: int
    ) -> tuple[Tensor, Tensor]:
        """Of each token of set A its best in B; places that hold nothing are below any cosine."""
        metric = comparable(metric)
        a, b = metric[:, first_a::2], metric[:, first_b::2]
        scores = (a @ b.transpose(1, 2)).masked_fill(~present[:, None, first_b::2], -2.0)
        best, edge = scores.max(dim=-1)
        return best.masked_fill(~present[:, first_a::2], -2.0), edge

    @staticmethod
    def _kept(counts: Tensor, present: Tensor, p: int, length: int) -> Tensor:
        """Positions that stay, and then as many others.

        They have ToMe's order, set A before B; an image that merges none keeps its own, as alone.
        """
        first_a, first_b = first_of_sets(p)
        at = torch.arange(present.shape[1], device=counts.device)
        at = torch.where(
            counts[:, None] > 0, torch.cat([at[:p], at[first_a::2], at[first_b::2]]), at
        )
        absent = ~present.gather(1, at)
        return at.gather(1, absent.int().argsort(dim=1, stable=True)[:, :length])

    def __repr__(self) -> str:
        return f"Threshold(similarity={self.similarity})"
