"""What chooses the tokens that merge: one protocol, of which ToMe's own matching is one case."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from mmvitaccel.core.tome.merge import Matching, bipartite_soft_matching

_SIMILARITIES = ("cosine", "dot")


class Candidates(NamedTuple):
    """The tokens that a block may merge.

    Attributes:
        metric: What is compared, such as the keys' mean over heads (B, N, D).
        size: Patches in each token (B, N, 1), float32; 0 marks a place that holds no token.
        r: Tokens to merge, at least 1 and at most half of those behind the prefix.
        num_prefix_tokens: Tokens in front (class, registers) that must stay there untouched.
        grid_size: (H, W), or (T, H, W), of the tokens behind the prefix, in reading order; None
            where they form no grid or the host does not say.
    """

    metric: Tensor
    size: Tensor
    r: int
    num_prefix_tokens: int = 0
    grid_size: tuple[int, ...] | None = None


class Matcher(Protocol):
    """Chooses the tokens that merge. It runs without gradients and without autocast."""

    def match(self, given: Candidates) -> Matching | None:
        """Which tokens merge; None if none do."""


class Bipartite:
    """Bipartite soft matching, ToMe's own (Bolya et al., ICLR 2023, section 3.2).

    Args:
        similarity: ``cosine``, or ``dot`` (the paper's ablation).

    Raises:
        ValueError: The similarity is neither.
    """

    def __init__(self, similarity: str = "cosine") -> None:
        if similarity not in _SIMILARITIES:
            raise ValueError(
                f"Bipartite: similarity={similarity!r} must be one of {', '.join(_SIMILARITIES)}."
            )
        self.similarity = similarity

    def match(self, given: Candidates) -> Matching:
        """The r best edges."""
        return bipartite_soft_matching(
            given.metric, given.r, given.num_prefix_tokens, self.similarity
        )

    def __repr__(self) -> str:
        return f"Bipartite(similarity={self.similarity!r})"


def match(matcher: Matcher, given: Candidates) -> Matching | None:
    """Ask a matcher.

    Raises:
        ValueError: What it gives does not hold each token once.
    """
    with torch.no_grad(), torch.autocast(given.metric.device.type, enabled=False):
        found = matcher.match(given._replace(metric=given.metric.detach()))
    if found is None:
        return None
    num_tokens = given.metric.shape[1]
    said = found.num_tokens
    if found.live is None:
        said = found.kept.shape[1] + found.src.shape[1]
    if said != num_tokens or found.dst.shape != found.src.shape:
        raise ValueError(
            f"ToMe: {type(matcher).__name__}.match got {num_tokens} tokens and gave kept "
            f"{tuple(found.kept.shape)}, src {tuple(found.src.shape)} and dst "
            f"{tuple(found.dst.shape)}; kept and src must hold each token once, and src and dst "
            "be of one shape."
        )
    return found
