"""Protocol of matchings, which choose the tokens to merge, and ToMe's own matching."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from mmvitaccel.arguments import one_of
from mmvitaccel.core.tome.merge import Matching, bipartite_soft_matching
from mmvitaccel.core.torch_modes import without_autocast

_SIMILARITIES = ("cosine", "dot")


class Candidates(NamedTuple):
    """The tokens that a block may merge.

    Attributes:
        metric: Features to compare, such as the keys' mean over heads (B, N, D).
        size: Patches in each token (B, N, 1) float32; 0 for an empty position.
        r: Number of tokens to merge, at least 1 and at most half of those after the prefix.
        num_prefix_tokens: Number of leading tokens (class, registers) that must not be merged or
            moved.
        grid_size: (H, W), or (T, H, W), of the tokens after the prefix in row-major order; None if
            they form no grid or it is unknown.
    """

    metric: Tensor
    size: Tensor
    r: int
    num_prefix_tokens: int = 0
    grid_size: tuple[int, ...] | None = None


class Matcher(Protocol):
    """Protocol: chooses the tokens to merge. Runs without gradients and autocast."""

    def match(self, given: Candidates) -> Matching | None:
        """Match the tokens; None if no tokens merge."""


class Bipartite:
    """Bipartite soft matching, ToMe's own (Bolya et al., ICLR 2023, section 3.2).

    Args:
        similarity: ``cosine``, or ``dot`` (the paper's ablation).

    Raises:
        ValueError: The similarity is neither.
    """

    def __init__(self, similarity: str = "cosine") -> None:
        self.similarity = one_of("Bipartite", "similarity", similarity, _SIMILARITIES)

    def match(self, given: Candidates) -> Matching:
        """Match the r best edges."""
        return bipartite_soft_matching(
            given.metric, given.r, given.num_prefix_tokens, self.similarity
        )

    def __repr__(self) -> str:
        return f"Bipartite(similarity={self.similarity!r})"


def match(matcher: Matcher, given: Candidates) -> Matching | None:
    """Call a matcher and check its result.

    Raises:
        ValueError: The result does not contain each token exactly once.
    """
    with torch.no_grad(), without_autocast(given.metric.device.type):
        found = matcher.match(given._replace(metric=given.metric.detach()))
    if found is None:
        return None
    num_tokens = given.metric.shape[1]
    matched = found.num_tokens
    if found.live is None:
        matched = found.kept.shape[1] + found.src.shape[1]
    if matched != num_tokens or found.dst.shape != found.src.shape:
        raise ValueError(
            f"ToMe: {type(matcher).__name__}.match got {num_tokens} tokens and returned kept "
            f"{tuple(found.kept.shape)}, src {tuple(found.src.shape)} and dst "
            f"{tuple(found.dst.shape)}; kept and src must contain each token once, and src and "
            f"dst must have equal shapes."
        )
    return found
