"""A batch that is being computed, and the thread's call that computes it."""

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
    """A batch that is being computed.

    Attributes:
        frames: Frames of its images.
        states: States of their streams; None for a frame without a stream.
        turn: The call that owns these streams.
        policy: The policy when the batch arrived.
        goes_on: Whether the containing model has passed batches before in the same call.
        next_block: Index of the next block.
        work: Data of the part that computes it.
    """

    frames: tuple[Frame, ...]
    states: list[StreamState | None]
    turn: Turn
    policy: Policy
    goes_on: bool = False
    next_block: int = 0
    work: Any = None

    def policy_of(self, state: StreamState | None) -> Policy:
        """Policy of a stream's frame."""
        own = None if state is None else state.policy
        return self.policy if own is None else own

    def parts(self, x: Tensor | None) -> list[tuple[StreamState | None, Tensor | None]]:
        """The states, each with its part of ``x`` (B, ...)."""
        if x is None or len(self.states) == 1 or len(x) == 1:
            return [(state, x) for state in self.states]
        return list(zip(self.states, x.split(1)))


class Call(threading.local):
    """Progress of a thread's call of a model."""

    def __init__(self) -> None:
        self.unnamed = unnamed_stream()
        self.inside = False
        self.image: tuple[int, ...] | None = None
        self.running: Batch | None = None
        self.frames: list[Passed] | None = None
