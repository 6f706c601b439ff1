"""Copies of a model that share its weights and nothing else."""

from __future__ import annotations

import copy

from torch import nn

from mmvitaccel.adapters.eventful.detector import handles_in


def on_the_same_weights(model: nn.Module) -> nn.Module:
    """Copy a model, sharing its parameters and buffers, with methods and policies of its own.

    The copy has no stream state. Parts that shared a policy share its copy.

    Args:
        model: A model in evaluation mode, in which nothing writes to buffers.
    """
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    copied = copy.deepcopy(model, shared)
    # A copied method still refers to the original policy, whose k a budget changes
    policies: dict[int, object] = {}
    for part in handles_in(copied).values():
        part.policy = policies.setdefault(id(part.policy), copy.deepcopy(part.policy))
    return copied
