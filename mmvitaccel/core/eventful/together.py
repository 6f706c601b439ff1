"""Frames of several streams in step: their tokens go through a layer together.

What a stream remembers is its own, but the layers are the same for all. With few tokens a matrix
product waits for its weights; those of all streams wait once. At a gate, a policy that streams
share sees the errors of all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple, Union

import torch
from torch import Tensor

from mmvitaccel.core.eventful.gates.policy import Gated, choose_for_all


class Wanted(NamedTuple):
    """What a stream's frame wants of a layer; its answer is what the layer gives.

    Attributes:
        layer: Computes every token independently; the same for all streams in step. Called with
            ``x`` and ``also``; gives a tensor (B, M, C) or several (B, h, M, D).
        x: The tokens that passed a gate, (B, M, C).
        also: What else belongs to these tokens: a tensor (B, h, M, D), what gives one (B, M, C)
            when it is called, or None.
        alone: Whether nothing is gained from others, as where all tokens passed.
    """

    layer: Callable[..., Any]
    x: Tensor
    also: tuple[Any, ...] = ()
    alone: bool = False


#: Asks for layers and for what passes gates, is sent what they give, and returns (B, N, C).
Steps = Generator[Union[Wanted, Gated], Any, Tensor]


def in_step(frames: Sequence[Steps]) -> list[Tensor]:
    """Compute frames of different streams.

    Args:
        frames: As they begin; all ask for the same layers and gates in the same order.

    Returns:
        What each of them returns.
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
    """What each one wanted, in order."""
    joined = [w for w in wanted if not w.alone]
    shared = iter(_shared(joined) if len(joined) > 1 else [])
    return [w.layer(w.x, *w.also) if w.alone or len(joined) == 1 else next(shared) for w in wanted]


def _shared(wanted: Sequence[Wanted]) -> list[Any]:
    """One call of the layer; each gets its own tokens, which are views of the whole."""
    sizes = [w.x.shape[1] for w in wanted]
    also = [_joined(parts) for parts in zip(*(w.also for w in wanted))]
    out = wanted[0].layer(torch.cat([w.x for w in wanted], 1), *also)
    if isinstance(out, Tensor):
        return list(out.split(sizes, 1))
    return list(zip(*(part.split(sizes, 2) for part in out)))


def _joined(parts: Sequence[Any]) -> Any:
    """The same of all tokens."""
    if parts[0] is None:
        return None
    if isinstance(parts[0], Tensor):
        return torch.cat(parts, 2)
    return lambda: torch.cat([part() for part in parts], 1)
