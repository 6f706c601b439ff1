"""Frames of several streams in step: a layer processes their tokens together.

Each stream has its own state, but the layers are the same for all. With few tokens, reading the
weights takes most of the time of a matrix product; a batch of streams reads them once. At a gate, a
shared policy gets the errors of all streams.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple, Union

import torch
from torch import Tensor

from mmvitaccel.core.eventful.gates.policy import Gated, choose_for_all


class Wanted(NamedTuple):
    """A request of a stream's frame to a layer; the answer is the layer's output.

    Attributes:
        layer: A layer that processes tokens independently, the same for all streams in step. Called
            with ``x`` and ``also``; returns a tensor (B, M, C) or several (B, h, M, D).
        x: The tokens that passed a gate, (B, M, C).
        also: Additional input for these tokens: a tensor (B, h, M, D), a function that returns a
            tensor (B, M, C), or None.
        alone: Whether batching with others has no benefit, for example if all tokens passed.
    """

    layer: Callable[..., Any]
    x: Tensor
    also: tuple[Any, ...] = ()
    alone: bool = False


#: Generator that yields requests to layers and gates, receives the answers, and returns (B, N, C).
Steps = Generator[Union[Wanted, Gated], Any, Tensor]


def in_step(frames: Sequence[Steps]) -> list[Tensor]:
    """Compute frames of different streams.

    Args:
        frames: Generators of the frames; all request the same layers and gates in the same order.

    Returns:
        The return value of each.
    """
    answers: list[Any] = [None] * len(frames)
    outs: list[Tensor] = []
    while not outs:
        wanted = []
        for frame, answer in zip(frames, answers):
            try:
                wanted.append(frame.send(answer))
            except StopIteration as end:
                outs.append(end.value)
        at_gate = bool(wanted) and isinstance(wanted[0], Gated)
        answers = choose_for_all(wanted) if at_gate else _answers(wanted)
    return outs


def _answers(wanted: Sequence[Wanted]) -> list[Any]:
    """Answers to the requests, in order."""
    joined = [w for w in wanted if not w.alone]
    shared = iter(_shared(joined) if len(joined) > 1 else [])
    return [w.layer(w.x, *w.also) if w.alone or len(joined) == 1 else next(shared) for w in wanted]


def _shared(wanted: Sequence[Wanted]) -> list[Any]:
    """Call the layer once; each request gets a view of the result."""
    sizes = [w.x.shape[1] for w in wanted]
    also = [_joined(parts) for parts in zip(*(w.also for w in wanted))]
    out = wanted[0].layer(torch.cat([w.x for w in wanted], 1), *also)
    if isinstance(out, Tensor):
        return list(out.split(sizes, 1))
    return list(zip(*(part.split(sizes, 2) for part in out)))


def _joined(parts: Sequence[Any]) -> Any:
    """Concatenate the inputs of all requests."""
    if parts[0] is None:
        return None
    if isinstance(parts[0], Tensor):
        return torch.cat(parts, 2)
    return lambda: torch.cat([part() for part in parts], 1)
