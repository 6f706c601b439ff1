"""Which stream each frame belongs to.

A stream is one video's frames in order (test-time flips and scales of it are streams of their own).
The context manager :func:`streams` sets the streams of a batch, because a detector passes nothing
but pixels to its backbone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import NamedTuple, Union

from mmvitaccel.core.eventful.motion.place import Place


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


class Clips:
    """The frames that one call of a model is given, which it may hand on in batches of any size.

    Every reader, a method on a part of the model, is given them once and in order. What the model
    computes beyond them, such as a further look at the same images, belongs to no stream.

    Args:
        clips: For each sample of the call its frames in order. None: a call whose frames nobody
            knows, so that all of them belong to no stream.
        on_more: Called when a reader asks for more frames than there are.
    """

    def __init__(
        self,
        clips: Sequence[Sequence[Frame]] | None,
        on_more: Callable[[], None] = lambda: None,
    ) -> None:
        around = current_frames()
        self.known = clips is not None
        self.frames = tuple(frame for clip in clips or () for frame in clip)
        several = self.known and len(clips) > 1 and len(self.frames) > len(clips)
        self.several_clips = len(clips) if several else 0
        self._on_more = on_more
        self._taken: dict[Hashable, int] = {}
        # reason: a tracker's call goes on while it calls its detector frame by frame
        self._started: set[Hashable] = around._started if isinstance(around, Clips) else set()

    def started(self, reader: Hashable) -> bool:
        """Whether this reader has taken frames already in the outermost call."""
        return reader in self._started

    def go_in_turn(self, reader: Hashable, size: int) -> bool:
        """Whether the reader's next ``size`` frames have several of one stream among them.

        Raises:
            ValueError: There are several clips of several frames, and only a part of them comes.
        """
        if self.several_clips and size != len(self.frames):
            raise ValueError(
                f"Eventful: {self.several_clips} clips with {len(self.frames)} frames came "
                f"together and {size} of these frames in a batch, which may be by clip or by time "
                "step; test with batch_size=1."
            )
        first = self._taken.get(reader, 0)
        names = [f.stream for f in self.frames[first : first + size] if f.stream is not None]
        return len(set(names)) < len(names)

    def take(self, reader: Hashable, size: int) -> tuple[Frame, ...]:
        """The reader's next frames, for a batch of that size.

        Raises:
            ValueError: The batch does not go with the frames that the call was given.
        """
        first = self._taken.get(reader, 0)
        self._taken[reader] = min(first + size, len(self.frames))
        self._started.add(reader)
        left = len(self.frames) - first
        if not self.known or (left == 0 and first > 0):
            if self.known:
                self._on_more()
            return (Frame(None),) * size
        if size > left:
            raise ValueError(
                f"Eventful: {left} of the call's {len(self.frames)} frames are left for a batch of "
                f"{size}; a batch must hold a frame for each data sample, or fewer."
            )
        return self.frames[first : first + size]


Naming = Union[tuple[Frame, ...], Clips]
_FRAMES: ContextVar[Naming | None] = ContextVar("mmvitaccel_frames", default=None)


class Told(NamedTuple):
    """What one part of a model said of a frame to those that come to it later.

    Attributes:
        by: Identity of the part.
        number: Different each time that something is said.
        refreshed: Whether the part computes the frame whole although its stream goes on.
        place: Where the view lies on which it gives its maps; None where no camera is followed.
    """

    by: int
    number: int
    refreshed: bool
    place: Place | None = None


_NUMBERS = itertools.count()
# By a frame's identity, since the frames of a clip may be equal to each other.
_TOLD: ContextVar[dict[int, Told] | None] = ContextVar("mmvitaccel_told", default=None)


def current_frames() -> Naming | None:
    """What :func:`streams` says around this call; None where nobody said anything."""
    return _FRAMES.get()


@contextmanager
def streams(frames: Sequence[Frame] | Clips) -> Iterator[None]:
    """Say which streams the images of the batches in this block belong to, in their order.

    Args:
        frames: Those of each batch, or the :class:`Clips` of one call.
    """
    token = _FRAMES.set(frames if isinstance(frames, Clips) else tuple(frames))
    told = _TOLD.set({})
    try:
        yield
    finally:
        _TOLD.reset(told)
        _FRAMES.reset(token)


def tell(frame: Frame, by: int, refreshed: bool, place: Place | None = None) -> None:
    """Say of a frame that is named around the call what :class:`Told` holds."""
    said = _TOLD.get()
    if said is not None:
        said[id(frame)] = Told(by, next(_NUMBERS), refreshed, place)


def told_of(frame: Frame) -> Told | None:
    """What was last said of this very frame within the block that names it."""
    return (_TOLD.get() or {}).get(id(frame))


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
