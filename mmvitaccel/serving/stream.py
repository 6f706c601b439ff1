"""What a worker knows of a stream, beside the model's memory of it."""

from __future__ import annotations

import hmac
import re
import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field

from mmvitaccel.serving.answers import Answer, Refused
from mmvitaccel.serving.model import Prepared

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
_LONGEST_TOKEN = 256


@dataclass
class Waiting:
    """A frame on its way.

    Attributes:
        stream: Its stream.
        frame_id: Its number.
        prepared: As the model takes it.
        arrived: Seconds, by the worker's clock.
        answer: Where its answer comes.
    """

    stream: Stream
    frame_id: int
    prepared: Prepared
    arrived: float
    answer: Future[Answer] = field(default_factory=Future)


@dataclass
class StreamCounts:
    """Frames of a stream; what was accepted is the sum of all but ``refused``, and what waits.

    Attributes:
        frames: Computed.
        whole: Of these, computed whole.
        dropped: Left out because a newer one came, or the stream or the worker was closed.
        cancelled: Left out because nobody waits for the answer any more.
        failed: On which the model failed.
        refused: Never accepted.
    """

    frames: int = 0
    whole: int = 0
    dropped: int = 0
    cancelled: int = 0
    failed: int = 0
    refused: int = 0


@dataclass
class Stream:
    """A stream that is open.

    Attributes:
        name: Its name.
        token: What its frames carry.
        used: When it was last asked for something, in seconds.
        last_id: Number of the last frame that was accepted; None before the first.
        waiting: Frames that wait for the model, the oldest first.
        counts: What became of its frames.
        order: Held while a frame is accepted, so that frames are decoded one after the other.
        is_open: False once it was closed.
    """

    name: str
    token: str
    used: float
    last_id: int | None = None
    waiting: deque[Waiting] = field(default_factory=deque)
    counts: StreamCounts = field(default_factory=StreamCounts)
    order: threading.Lock = field(default_factory=threading.Lock)
    is_open: bool = True

    def check_token(self, token: str) -> None:
        """Refuse another token than the stream's.

        Raises:
            Refused: It is another one.
        """
        if not isinstance(token, str) or not hmac.compare_digest(
            token.encode(), self.token.encode()
        ):
            raise Refused(
                "token",
                f"stream {self.name!r} was opened with another token; give that one, or open a "
                "stream of another name.",
            )

    def check_order(self, frame_id: int) -> None:
        """Refuse a number that is none, or not above that of the last frame.

        Raises:
            Refused: It is not.
        """
        if isinstance(frame_id, bool) or not isinstance(frame_id, int):
            raise Refused(
                "order",
                f"stream {self.name!r}: frame id {frame_id!r} is no whole number; give one.",
            )
        if self.last_id is not None and frame_id <= self.last_id:
            raise Refused(
                "order",
                f"stream {self.name!r}: frame {frame_id} came after frame {self.last_id}; frames "
                "come in order of their ids, so leave it out or close and open the stream.",
            )


def check_name(stream: str) -> str:
    """A stream's name, if it is one.

    Raises:
        Refused: It has other characters than letters, digits, ``.``, ``_`` and ``-``, begins with
            a dot or has more than 64.
    """
    if not isinstance(stream, str) or not _NAME.fullmatch(stream):
        raise Refused(
            "name",
            f"{stream!r} is no stream's name; give 1 to 64 letters, digits, '_', '-' and '.', "
            "which is not the first.",
        )
    return stream


def check_token(token: str) -> str:
    """A token, if it is one.

    Raises:
        Refused: It is empty or no text of at most 256 characters.
    """
    if not isinstance(token, str) or not 0 < len(token) <= _LONGEST_TOKEN:
        what = f"{len(token)} characters" if isinstance(token, str) else type(token).__name__
        raise Refused("name", f"the token is {what}; give 1 to {_LONGEST_TOKEN} characters.")
    return token
