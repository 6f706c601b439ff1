"""A batch on its way through a model, and the thread's call that computes it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mmvitaccel.adapters.eventful.streams.frame_info import Passed
from mmvitaccel.adapters.eventful.streams.naming import unnamed_stream
from mmvitaccel.core.eventful.frame import Frame
from mmvitaccel.core.eventful.gates.policy import Policy
from mmvitaccel.core.eventful.stream import StreamState, Turn


@dataclass
class Batch:
    """A batch on its way.

    Attributes:
        frames: Whose images it holds.
        states: What is remembered of them, None for a frame of no stream.
        turn: What makes these streams its own.
        policy: As it was when the batch arrived.
        goes_on: Whether the model around has handed on batches before in the same call.
        next_block: The block that it reaches next.
        work: What the part that computes it notes of it.
    """

    frames: tuple[Frame, ...]
    states: list[StreamState | None]
    turn: Turn
    policy: Policy
    goes_on: bool = False
    next_block: int = 0
    work: Any = None

    def policy_of(self, state: StreamState | None) -> Policy:
        """What is let through of a stream's frame."""
        own = None if state is None else state.policy
        return self.policy if own is None else own

    def parts(self, x: Tensor | None) -> list[tuple[StreamState | None, Tensor | None]]:
        """The states, each with its share of ``x`` (B, ...)."""
        if x is None or len(self.states) == 1 or len(x) == 1:
            return [(state, x) for state in self.states]
        return list(zip(self.states, x.split(1)))


class Call(threading.local):
    """What a thread's call of a model is at."""

    def __init__(self) -> None:
        self.unnamed = unnamed_stream()
        self.inside = False
        self.image: tuple[int, ...] | None = None
        self.running: Batch | None = None
        self.frames: list[Passed] | None = None
