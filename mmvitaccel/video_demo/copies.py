"""Models that share their weights and nothing else."""

from __future__ import annotations

import copy

from torch import nn

from mmvitaccel.adapters.eventful.detector import handles_in


def on_the_same_weights(model: nn.Module) -> nn.Module:
    """A copy with the same parameters and buffers, and with methods and policies of its own.

    It remembers no streams. Parts that had one policy together have one together.

    Args:
        model: In evaluation mode, in which nothing writes to buffers.
    """
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    copied = copy.deepcopy(model, shared)
    # reason: a copied method keeps the very policy, whose k a budget turns
    policies: dict[int, object] = {}
    for part in handles_in(copied).values():
        part.policy = policies.setdefault(id(part.policy), copy.deepcopy(part.policy))
    return copied
