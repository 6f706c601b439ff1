"""Assignment of frames to streams.

A stream is one video's frames in order; test-time flips and scales of a video are separate streams.
The context manager :func:`streams` sets the streams of a batch, because a detector passes only
pixels to its backbone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Union

from mmvitaccel.core.eventful.motion.place import Place
from mmvitaccel.core.eventful.scope import Scope


@dataclass(frozen=True)
class Frame:
    """One frame of one stream.

    Attributes:
        stream: Any hashable id; None for a frame without a stream, which is computed densely
            without state.
        frame_id: Number of the frame; None if frames are known to be in order.
        cut: Whether a new scene begins with this frame.
        lockstep: Whether the whole batch is one frame of this stream.
        num_frames: Total number of frames of the stream, after which its state is dropped; None if
            unknown.
    """

    stream: Hashable
    frame_id: int | None = None
    cut: bool = False
    lockstep: bool = False
    num_frames: int | None = None


class Clips:
    """The frames of one call of a model, which may process them in batches of any size.

    Every reader, which is a method on a part of the model, receives them once and in order. Further
    computations, such as a second pass over the same images, belong to no stream.

    Args:
        clips: The frames of each sample of the call, in order. None if the frames are unknown; they
            then belong to no stream.
        on_more: Called when a reader requests more frames than there are.
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
        # A tracker calls its detector frame by frame within one call
        self._started: set[Hashable] = around._started if isinstance(around, Clips) else set()

    def started(self, reader: Hashable) -> bool:
        """Whether this reader has already taken frames in the outermost call."""
        return reader in self._started

    def go_in_turn(self, reader: Hashable, size: int) -> bool:
        """Whether the reader's next ``size`` frames include several of one stream.

        Raises:
            ValueError: There are several clips of several frames, and the batch has only a part of
                them.
        """
        if self.several_clips and size != len(self.frames):
            raise ValueError(
                f"Eventful: {self.several_clips} clips with {len(self.frames)} frames were "
                f"given, but the batch has {size} of these frames, which may be ordered by clip "
                f"or by time step; test with batch_size=1."
            )
        first = self._taken.get(reader, 0)
        names = [f.stream for f in self.frames[first : first + size] if f.stream is not None]
        return len(set(names)) < len(names)

    def take(self, reader: Hashable, size: int) -> tuple[Frame, ...]:
        """The reader's next frames for a batch of ``size``.

        Raises:
            ValueError: The batch does not match the frames of the call.
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
                f"{size}; a batch must have at most one frame for each data sample."
            )
        return self.frames[first : first + size]


Naming = Union[tuple[Frame, ...], Clips]


class Told(NamedTuple):
    """Message of one part of a model about a frame to the later parts.

    Attributes:
        by: Identity of the sending part.
        number: Unique number of the message.
        refreshed: Whether the part computes this frame completely within the stream.
        place: Position of the view of its maps; None without motion, or with maps on the frame.
        interpolated: Whether its maps follow a motion and lie on the frame.
    """

    by: int
    number: int
    refreshed: bool
    place: Place | None = None
    interpolated: bool = False


class _Named(NamedTuple):
    """The frames of a block, and the last message about each, by identity.

    Identity, because the frames of a clip may be equal.
    """

    frames: Naming
    told: dict[int, Told]


_NUMBERS = itertools.count()
_NAMED: Scope[_Named] = Scope("mmvitaccel_frames")


def current_frames() -> Naming | None:
    """The frames set by :func:`streams` around this call; None without it."""
    named = _NAMED.current()
    return None if named is None else named.frames


@contextmanager
def streams(frames: Sequence[Frame] | Clips) -> Iterator[None]:
    """Set the streams of the images of the batches in this block, in order.

    Args:
        frames: The frames of each batch, or the :class:`Clips` of one call.
    """
    frames = frames if isinstance(frames, Clips) else tuple(frames)
    with _NAMED.holding(_Named(frames, {})):
        yield


def tell(
    frame: Frame,
    by: int,
    refreshed: bool,
    place: Place | None = None,
    interpolated: bool = False,
) -> None:
    """Store a :class:`Told` about a frame that :func:`streams` has set."""
    named = _NAMED.current()
    if named is not None:
        named.told[id(frame)] = Told(by, next(_NUMBERS), refreshed, place, interpolated)


def told_of(frame: Frame) -> Told | None:
    """The last message about this frame object within its :func:`streams` block."""
    named = _NAMED.current()
    return None if named is None else named.told.get(id(frame))


def frames_of(
    stream: Hashable | Sequence[Hashable],
    frame_id: int | Sequence[int] | None = None,
    cut: bool | Sequence[bool] = False,
) -> tuple[Frame, ...]:
    """Make frames from a user's arguments.

    Args:
        stream: A list with an id for each image of a batch, or one id. With one id, a batch larger
            than 1 is one frame of a single stream.
        frame_id: A number, a list of them, or None.
        cut: Whether a new scene begins; one for all or a list.

    Raises:
        ValueError: Lists of different lengths, duplicate streams, or no stream.
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
            f"stream: {named} has a stream twice; give the frames of a stream in separate calls, "
            f"one after the other."
        )
    return tuple(frames)
