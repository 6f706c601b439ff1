"""The result of a frame: an answer, or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mmvitaccel.errors import UserError

#: Reasons why a frame has no answer, with their meaning.
REASONS = {
    "name": "the stream's name or the token is invalid",
    "unknown": "the stream is not open",
    "token": "the token is not the stream's",
    "order": "the frame's number is not above the last one",
    "frame": "the frame is not a picture or tensor that the model accepts",
    "large": "the frame has more bytes or pixels than the limit",
    "full": "the limit of open streams or waiting frames is reached",
    "dropped": "a newer frame of the stream replaced it before it was computed",
    "failed": "the model failed on this frame",
    "closed": "the stream or the worker was closed before it was computed",
    "lost": "the process that served the stream ended or did not answer in time",
}

#: Of these, the reasons that befall frames that were accepted; they are counted by kind instead.
OF_ACCEPTED = ("dropped", "failed", "lost")


class Refused(UserError):
    """Raised for a frame or stream that a worker does not serve.

    Args:
        reason: A key of :data:`REASONS`.
        sentence: What is wrong, with the values, and what to do.
    """

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason

    def __reduce__(self) -> tuple[type[Refused], tuple[str, str]]:
        # Ray pickles it to pass it between processes
        return type(self), (self.reason, str(self))


@dataclass(frozen=True)
class Answer:
    """A frame that was computed.

    Attributes:
        stream: Name of its stream.
        frame_id: Its number in the stream.
        output: The model's output for it, see the model's ``run``.
        whole: Whether it was computed whole, as the first frame of a stream is.
        computed: Share of the tokens that passed the gates of the model's first eventful part; 1
            for a frame that was computed whole.
        batch: Number of frames in its batch, itself included.
        milliseconds: Time of the model for the batch, divided by the number of its frames.
        waited: Milliseconds from its arrival until the model started.
    """

    stream: str
    frame_id: int
    output: Any
    whole: bool
    computed: float
    batch: int
    milliseconds: float
    waited: float
