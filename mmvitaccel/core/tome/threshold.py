"""Merging above a similarity threshold, where the number depends on the picture."""

from __future__ import annotations

import torch
from torch import Tensor

from mmvitaccel.arguments import number
from mmvitaccel.core.kernels.export import refuse_export
from mmvitaccel.core.tome.matcher import Candidates
from mmvitaccel.core.tome.merge import (
    Matching,
    comparable,
    first_of_sets,
    places_of,
    ranked,
)

_NOT_EXPORTED = (
    "ToMe with matching=Threshold cannot be exported: the number of merges depends on the picture, "
    "and a graph would keep that of the picture it was traced with; use a matching that merges r, "
    "such as Bipartite."
)


class Threshold:
    """Merges ToMe's edges with a cosine of at least a threshold, at most r of them.

    The number depends on the picture, as in ATM (arXiv 2505.15160), which has a threshold for each
    layer; here all layers have the same. In a batch, every image keeps its own number: shorter ones
    are padded with empty positions (size 0) that no token attends to, so the result does not depend
    on the batch. A fraction r refers to the tokens of the longest image.

    The next layer needs the number of tokens, so each block synchronises once with the device.

    Args:
        similarity: Least cosine at which two tokens merge, within [-1, 1].

    Raises:
        ValueError: The similarity is out of range.
    """

    def __init__(self, similarity: float = 0.9) -> None:
        self.similarity = number("Threshold", "similarity", similarity, least=-1, most=1)

    def match(self, given: Candidates) -> Matching | None:
        """Match the edges above the threshold, best first.

        Raises:
            RuntimeError: The model is being traced or exported.
        """
        refuse_export(_NOT_EXPORTED)
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
        # The only synchronisation in a block.
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
        """The best match in B of each token of set A; empty positions are below any cosine."""
        metric = comparable(metric)
        a, b = metric[:, first_a::2], metric[:, first_b::2]
        scores = (a @ b.transpose(1, 2)).masked_fill(~present[:, None, first_b::2], -2.0)
        best, edge = scores.max(dim=-1)
        return best.masked_fill(~present[:, first_a::2], -2.0), edge

    @staticmethod
    def _kept(counts: Tensor, present: Tensor, p: int, length: int) -> Tensor:
        """Kept positions, padded with others.

        In ToMe's order, set A before B; an image without merges keeps its order, as without a
        batch.
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
