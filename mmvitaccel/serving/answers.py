"""What a worker says of a frame: an answer, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mmvitaccel.errors import UserError

#: Why a frame has no answer, and what it means.
REASONS = {
    "name": "the stream's name or the token is none",
    "unknown": "the stream is not open",
    "token": "the token is another stream's",
    "order": "the frame's number is not above the last one",
    "frame": "the frame is no picture or tensor that the model takes",
    "large": "the frame has more bytes or pixels than are taken",
    "full": "more streams or frames than are held",
    "dropped": "a newer frame of the stream took its place before it was computed",
    "failed": "the model failed on this frame",
    "closed": "the stream or the worker was closed before it was computed",
    "lost": "the process that had the stream ended with it",
}


class Refused(UserError):
    """A frame or stream that a worker does not serve.

    Args:
        reason: A key of :data:`REASONS`.
        sentence: What is wrong, with the values, and what to do.
    """

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason

    def __reduce__(self) -> tuple[type[Refused], tuple[str, str]]:
        # reason: an engine carries it from one process to another
        return type(self), (self.reason, str(self))


@dataclass(frozen=True)
class Answer:
    """A frame that was computed.

    Attributes:
        stream: Its stream.
        frame_id: Its number.
        output: What the model found: see the model's ``run``.
        whole: Whether it was computed whole, as the first frame of a stream is.
        computed: Share of the tokens that passed the gates of the model's first eventful part, 1 of
            a frame that was computed whole.
        batch: Frames that the model was given together with it, itself included.
        milliseconds: Time of the model for the batch, over the frames in it.
        waited: Milliseconds from its arrival until the model was given it.
    """

    stream: str
    frame_id: int
    output: Any
    whole: bool
    computed: float
    batch: int
    milliseconds: float
    waited: float
