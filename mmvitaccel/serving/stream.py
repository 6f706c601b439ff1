"""A worker's record of a stream, beside the state that the model keeps."""

from __future__ import annotations

import hmac
import re
import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field

from mmvitaccel.serving.answers import Answer, Refused
from mmvitaccel.serving.model import Prepared

_LONGEST_NAME = 64
_NAME = re.compile(rf"[A-Za-z0-9_-][A-Za-z0-9._-]{{0,{_LONGEST_NAME - 1}}}")
_LONGEST_TOKEN = 256


@dataclass
class Waiting:
    """A frame that waits for the model.

    Attributes:
        stream: Its stream.
        frame_id: Its number in the stream.
        prepared: The frame, prepared for the model.
        arrived: Time of its arrival in seconds, by the worker's clock.
        answer: The future of its answer.
    """

    stream: Stream
    frame_id: int
    prepared: Prepared
    arrived: float
    answer: Future[Answer] = field(default_factory=Future)


@dataclass
class StreamCounts:
    """Number of a stream's frames by what became of them.

    Attributes:
        frames: Computed frames.
        whole: Of these, frames that were computed whole.
        dropped: Frames left out because a newer one arrived, or the stream or worker was closed.
        cancelled: Frames whose answer was cancelled.
        failed: Frames on which the model failed.
        refused: Frames that were not accepted.
    """

    frames: int = 0
    whole: int = 0
    dropped: int = 0
    cancelled: int = 0
    failed: int = 0
    refused: int = 0


@dataclass
class Stream:
    """An open stream.

    Attributes:
        name: Its name.
        token: The token that its frames carry.
        used: Time of its last use, in seconds.
        last_id: Number of the last frame that was accepted; None before the first.
        waiting: Frames that wait for the model, the oldest first.
        counts: What became of its frames.
        order: Lock held while a frame is accepted, so that frames are decoded one after the other.
        is_open: False once it is closed.
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
        """Check a token.

        Raises:
            Refused: It is not the stream's.
        """
        if not same_token(self.token, token):
            raise Refused(
                "token",
                f"stream {self.name!r} was opened with another token; use that one, or open a "
                "stream with another name.",
            )

    def check_order(self, frame_id: int) -> None:
        """Check that a frame's number is above that of the last frame.

        Raises:
            Refused: It is not, or it is not an integer of 64 bits.
        """
        if isinstance(frame_id, bool) or not isinstance(frame_id, int):
            raise Refused(
                "order",
                f"stream {self.name!r}: frame id {repr(frame_id)[:40]} must be an integer.",
            )
        if not -(2**63) <= frame_id < 2**63:
            # Python refuses to write a number of thousands of digits
            raise Refused(
                "order",
                f"stream {self.name!r}: the frame id has {frame_id.bit_length()} bits; give one "
                "from -2**63 to 2**63 - 1.",
            )
        if self.last_id is not None and frame_id <= self.last_id:
            raise Refused(
                "order",
                f"stream {self.name!r}: frame {frame_id} came after frame {self.last_id}; send "
                "frames in the order of their ids, or close the stream and open it again.",
            )


def same_token(one: str, other: object) -> bool:
    """Whether two tokens are the same; a comparison takes as long for all tokens of a length."""
    if not isinstance(other, str):
        return False
    return hmac.compare_digest(*(each.encode(errors="surrogatepass") for each in (one, other)))


def check_name(stream: str) -> str:
    """Check a stream's name, and return it.

    Raises:
        Refused: It is not 1 to 64 letters, digits, ``.``, ``_`` and ``-``, or begins with a dot.
    """
    if not isinstance(stream, str) or not _NAME.fullmatch(stream):
        raise Refused(
            "name",
            f"invalid stream name {_shown(stream)}; give 1 to 64 letters, digits, '_', '-' and "
            "'.', and do not begin with '.'.",
        )
    return stream


def check_token(token: str) -> str:
    """Check a token, and return it.

    Raises:
        Refused: It is not a string of 1 to 256 characters, or UTF-8 has no bytes for it.
    """
    what = None
    if not isinstance(token, str):
        what = f"a {type(token).__name__}"
    elif not 0 < len(token) <= _LONGEST_TOKEN:
        what = f"{len(token)} characters"
    elif any("\ud800" <= letter <= "\udfff" for letter in token):
        what = "half a character (a surrogate)"
    if what is not None:
        raise Refused("name", f"invalid token: {what}; give 1 to {_LONGEST_TOKEN} characters.")
    return token


def _shown(stream: object) -> str:
    """What was given as a name, not longer than a name can be."""
    if isinstance(stream, str):
        more = f"... of {len(stream)} characters" if len(stream) > _LONGEST_NAME else ""
        return f"{stream[:_LONGEST_NAME]!r}{more}"
    return f"of type {type(stream).__name__}"
