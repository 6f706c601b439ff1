"""Which stream each frame belongs to.

A stream is one video's frames in order (test-time flips and scales of it are streams of their own).
The context manager :func:`streams` sets the streams of a batch, because a detector passes nothing
but pixels to its backbone.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class Frame:
    """One frame of one stream.

    Attributes:
        stream: Any hashable id; None for a frame that belongs to no stream and is computed
            densely, remembering nothing.
        frame_id: Its number; None where frames are known to come in order.
        cut: Whether a new scene begins with it.
        lockstep: Whether the whole batch is this one stream's frame.
        num_frames: Frames that the stream has in all, after which it is forgotten; None where
            nobody knows.
    """

    stream: Hashable
    frame_id: int | None = None
    cut: bool = False
    lockstep: bool = False
    num_frames: int | None = None


_FRAMES: ContextVar[tuple[Frame, ...] | None] = ContextVar("mmvitaccel_frames", default=None)


def current_frames() -> tuple[Frame, ...] | None:
    """The frames that :func:`streams` set around this call; None outside of such a block."""
    return _FRAMES.get()


@contextmanager
def streams(frames: Sequence[Frame]) -> Iterator[None]:
    """Say which streams the images of the batches in this block belong to, in their order."""
    token = _FRAMES.set(tuple(frames))
    try:
        yield
    finally:
        _FRAMES.reset(token)


def frames_of(
    stream: Hashable | Sequence[Hashable],
    frame_id: int | Sequence[int] | None = None,
    cut: bool | Sequence[bool] = False,
) -> tuple[Frame, ...]:
    """Frames from what a user gives.

    Args:
        stream: A list with an id for each image of a batch, or one id: then the batch, if larger
            than 1, goes in lockstep as a single stream.
        frame_id: A number, a list of them, or None.
        cut: Whether a new scene begins; one for all or a list.

    Raises:
        ValueError: Lists of different lengths, the same stream twice, or no stream.
        TypeError: An id that is not hashable.
    """
    if not isinstance(stream, list):
        for name, value in (("frame_id", frame_id), ("cut", cut)):
            if isinstance(value, (list, tuple)):
                raise ValueError(
                    f"stream: {name}={value!r} is a list but stream={stream!r} is one."
                )
        frames = [Frame(stream, frame_id, bool(cut), lockstep=True)]
    else:
        ids = list(frame_id) if isinstance(frame_id, (list, tuple)) else [frame_id] * len(stream)
        cuts = list(cut) if isinstance(cut, (list, tuple)) else [cut] * len(stream)
        if not len(stream) == len(ids) == len(cuts):
            raise ValueError(
                f"stream: {len(stream)} streams, {len(ids)} frame ids and {len(cuts)} cuts were "
                "given; give one of each for every image of the batch."
            )
        frames = [Frame(s, i, bool(c)) for s, i, c in zip(stream, ids, cuts)]
    named = [frame.stream for frame in frames if frame.stream is not None]
    for name in named:
        if not isinstance(name, Hashable):
            raise TypeError(
                f"stream: {name!r} is not hashable; name a stream by a string or number."
            )
    if len(set(named)) < len(named):
        raise ValueError(
            f"stream: {named} names a stream twice; its frames come one after the other, so give "
            "them in separate calls."
        )
    return tuple(frames)
