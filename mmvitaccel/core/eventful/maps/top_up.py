"""Cells that pass the gate of a map beyond a policy's budget, because they have clearly changed.

In a backbone, a token that waits for the next frame is late by one frame. A neck behind it that
lets through no more cells than the backbone makes it wait a second time. Of a map in which little
moves, the budget covers all that changed, and nothing is added.
"""

from __future__ import annotations

from torch import Tensor

from mmvitaccel.core.eventful.gates.host_reads import reading_is_free
from mmvitaccel.core.eventful.gates.policy import Policy, most_of
from mmvitaccel.core.eventful.gates.selection import Selection, from_mask

#: A cell has clearly changed if its error is more than this share of the norm of the map's cells.
CLEAR = 0.1
#: At most this many times the budget pass.
TIMES = 4


def has_budget(policy: Policy) -> bool:
    """Whether a policy selects by errors up to a number of tokens, per stream or per batch."""
    return hasattr(policy, "with_budget") or getattr(policy, "shared", False)


def topped_up(passed: Selection, relative: Tensor, policy: Policy) -> Selection:
    """Add the cells that have clearly changed to those that a policy selected.

    Args:
        passed: The cells that the policy selected.
        relative: Errors (B, N) of the cells, relative to the norm of the map's cells.
        policy: The policy. Without a budget, nothing is added.

    Returns:
        The selected cells and those whose error is above :data:`CLEAR`, the largest first, up to
        :data:`TIMES` the policy's budget. If reading their number would synchronise with the
        device, rows are padded to this limit.
    """
    if not has_budget(policy):
        return passed
    most = min(TIMES * most_of(policy, passed.num_tokens), passed.num_tokens)
    if passed.index.shape[1] >= most:
        return passed
    selected = passed.mask()
    largest = relative.masked_fill(selected, float("inf")).topk(most, dim=1, sorted=False).indices
    # Negated, so that cells with NaN errors pass
    clear = (relative <= CLEAR).logical_not() | selected
    mask = selected.scatter(1, largest, clear.gather(1, largest))
    return from_mask(mask, None if reading_is_free(mask.device) else most)
