"""The memory of each stream.

A stream's memory is a plain object that belongs to the stream: not to a module, where another
stream's frame would find it, and not in registered buffers, which are saved, cast and averaged over
ranks.

Threads may compute different streams at the same time. A stream's frames come one after the other,
and two threads that compute one stream have no order of frames: the second is refused. It does not
wait, since nothing would say then that two videos go by one name.
"""

from __future__ import annotations

import math
import threading
import warnings
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mmvitaccel.core.eventful.frame import Frame
from mmvitaccel.core.eventful.gates.host_reads import Alarms
from mmvitaccel.core.eventful.gates.importance import Matters, Objects
from mmvitaccel.core.eventful.gates.policy import Policy
from mmvitaccel.core.eventful.gates.refresh import WholeFrames
from mmvitaccel.core.eventful.motion.place import Place
from mmvitaccel.core.eventful.motion.scene import Scene
from mmvitaccel.core.locks import Lock


class Turn:
    """A call that computes frames: while it does, their streams are its own.

    Attributes:
        thread: The thread that it runs in. The streams of a thread that has ended are free.
    """

    def __init__(self) -> None:
        self.thread = threading.current_thread()


@dataclass
class StreamState:
    """What is remembered of one stream.

    Attributes:
        blocks: Memory of each block that ran, by its number.
        frame_id: Number of the last frame.
        num_frames: Frames since the last clean start, the present one included.
        seen: Frames since the video was last begun, the present one included.
        signature: What must not change: shape, dtype, device, weights.
        weights: Norms of weights that ``signature`` does not tell, at the clean start.
        unsound: Raised when a frame held a number that is not finite, or ``weights`` changed.
        busy: Whether a block is running, or was interrupted by an error.
        refreshed: Whether this frame is computed whole on what is remembered.
        policy: What is let through of this frame; None where that is the same for a whole batch.
        whole: What decides which frames are refreshed.
        matters: What is known of its objects.
        scene: Where its frames lie, where it follows its camera.
        place: Where the view of its frame lies, of a part that is given maps of one.
        misfit_said: Whether it was said that a frame did not follow from the one before.
        heard: Number of what another part of the model last said of a frame.
        turn: The call that computes its frame now, None between frames.
    """

    blocks: dict[int, Any] = field(default_factory=dict)
    frame_id: int | None = None
    num_frames: int = 0
    seen: int = 0
    signature: Any = None
    weights: Tensor | None = None
    unsound: Alarms = field(default_factory=Alarms)
    busy: bool = False
    refreshed: bool = False
    policy: Policy | None = None
    whole: WholeFrames = field(default_factory=WholeFrames)
    matters: Matters = field(default_factory=Matters)
    scene: Scene | None = None
    place: Place | None = None
    misfit_said: bool = False
    heard: int | None = None
    turn: Turn | None = None

    @property
    def is_taken(self) -> bool:
        """Whether a call computes its frame now."""
        return self.turn is not None and self.turn.thread.is_alive()

    def begin(self, frame: Frame, signature: Any, weights: Tensor | None = None) -> None:
        """Start a frame: on what is remembered if that can be, clean otherwise.

        Args:
            frame: The frame.
            signature: What must not change.
            weights: What must not change either and lies on a device, (n,).
        """
        if self.weights is not None and weights is not None and self.signature == signature:
            self.unsound.watch((self.weights != weights).any())
        advances = None in (frame.frame_id, self.frame_id) or frame.frame_id > self.frame_id
        goes_on = (
            advances
            and not frame.cut
            and not self.busy
            and self.signature == signature
            and not self.unsound.raised
        )
        if not advances:
            self.seen = 0  # a frame or video that is given again, to be timed for instance
        if not goes_on:
            self.blocks.clear()
            self.num_frames = 0
            self.busy = False
            self.unsound.clear()
            self.weights = weights
            self.whole, self.matters, self.scene = WholeFrames(), Matters(), None
        self.refreshed, self.policy, self.place = False, None, None
        self.frame_id, self.signature = frame.frame_id, signature
        self.num_frames += 1
        self.seen += 1

    def saw(self, x: Tensor) -> None:
        """Note whether ``x`` is finite; a stream that is not starts clean at its next frame.

        On a device that is not to be waited for, at the first frame that begins after it is known.
        """
        # reason: in single precision, the sum of half-precision numbers cannot overflow.
        self.unsound.watch(torch.isfinite(x.sum(dtype=torch.float32)).logical_not())

    def memory_bytes(self) -> int:
        """Bytes that the state's tensors take."""
        return memory_bytes([self.blocks, self.whole, self.matters, self.scene])


class StreamStore:
    """The streams that are remembered; the least recently used is evicted first.

    Args:
        max_streams: Streams kept.

    Raises:
        ValueError: ``max_streams`` is below 1.
    """

    def __init__(self, max_streams: int = 4) -> None:
        if max_streams < 1:
            raise ValueError(f"Eventful: max_streams={max_streams} must be at least 1.")
        self.max_streams = max_streams
        self._states: OrderedDict[Hashable, StreamState] = OrderedDict()
        self._dropped: OrderedDict[Hashable, None] = OrderedDict()
        self._warned = False
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._states)

    def __contains__(self, stream: Hashable) -> bool:
        return stream in self._states

    @property
    def names(self) -> list[Hashable]:
        """Streams kept, least recently used first."""
        with self._lock:
            return list(self._states)

    def state(self, stream: Hashable) -> StreamState:
        """What is remembered of a stream.

        Raises:
            KeyError: Nothing is.
        """
        return self._states[stream]

    def begin(
        self,
        frames: Sequence[Frame],
        signature: Any,
        turn: Turn | None = None,
        weights: Tensor | None = None,
    ) -> list[StreamState | None]:
        """States of a batch's frames, started; None for a frame that belongs to no stream.

        Args:
            frames: Of the batch.
            signature: What must not change in a stream.
            turn: The call that computes them, which is to :meth:`end` it. None: nobody else does.
            weights: What must not change either and lies on a device, (n,).

        Raises:
            ValueError: The batch alone has more streams than are kept.
            RuntimeError: Another call computes a frame of one of the streams.
        """
        named = [frame.stream for frame in frames if frame.stream is not None]
        if len(named) > self.max_streams:
            raise ValueError(
                f"Eventful: a batch of {len(named)} streams but max_streams={self.max_streams} are "
                f"kept; set max_streams to at least {len(named)}."
            )
        with self._lock:
            states = self._take(named, turn)
        try:
            for frame in frames:
                if frame.stream is not None:
                    states[frame.stream].begin(frame, signature, weights)
        except BaseException:
            self.end(list(states.values()), turn)
            raise
        return [None if f.stream is None else states[f.stream] for f in frames]

    def end(self, states: Sequence[StreamState | None], turn: Turn | None) -> None:
        """Release the streams of a call that has ended, normally or by an error."""
        with self._lock:
            for state in states:
                if state is not None and state.turn is turn:
                    state.turn = None
            self._drop_oldest(self.max_streams)

    def drop(self, stream: Hashable | None = None) -> None:
        """Forget a stream, or all of them; one that is not known is no error.

        A frame that is being computed is not disturbed; the stream's next one is a first one.
        """
        with self._lock:
            if stream is None:
                self._states.clear()
                self._dropped.clear()
            else:
                self._states.pop(stream, None)
                self._dropped.pop(stream, None)

    def request_refresh(self, stream: Hashable | None = None) -> None:
        """Let the next frame of a stream, or of all, be computed whole.

        One that is not known is no error: its next frame is a first one.
        """
        with self._lock:
            for name, state in self._states.items():
                if stream is None or name == stream:
                    state.whole.requested = True

    def saw_objects(self, stream: Hashable, objects: Objects) -> None:
        """Note where objects are in a stream; of one that is not remembered nothing is kept."""
        with self._lock:
            if stream in self._states:
                self._states[stream].matters.objects = objects

    def memory_bytes(self, stream: Hashable | None = None) -> int:
        """Bytes that the tensors of a stream take, or of all; 0 of one that is not kept."""
        with self._lock:
            states = [s for name, s in self._states.items() if stream is None or name == stream]
        return memory_bytes([[s.blocks, s.whole, s.matters, s.scene] for s in states])

    def _take(self, named: Sequence[Hashable], turn: Turn | None) -> dict[Hashable, StreamState]:
        """The states of a call's streams, made its own."""
        for name in named:
            state = self._states.get(name)
            if state is not None and state.is_taken:
                raise RuntimeError(
                    f"Eventful: a frame of stream {name!r} came in thread "
                    f"{threading.current_thread().name!r} while another is computed in "
                    f"{state.turn.thread.name!r}; give the frames of a stream one after the other, "
                    "and every video a name of its own."
                )
        for name in named:  # the batch's own streams are the last to go
            if name in self._states:
                self._states.move_to_end(name)
        for name in named:
            if name not in self._states:
                self._make_room(name, named)
                self._states[name] = StreamState()
        states = {name: self._states[name] for name in named}
        for state in states.values():
            state.busy = state.busy or state.turn is not None  # its thread ended within a frame
            state.turn = turn
        return states

    def forget_finished(self, frames: Sequence[Frame]) -> None:
        """Forget those streams of a batch whose last frame it held."""
        for frame in frames:
            with self._lock:
                state = self._states.get(frame.stream)
                # reason: counted, since frames may be numbered from 0 or 1, and with gaps.
                if state is not None and state.seen >= (frame.num_frames or math.inf):
                    self.drop(frame.stream)

    def _make_room(self, newcomer: Hashable, named: Sequence[Hashable]) -> None:
        if newcomer in self._dropped:
            del self._dropped[newcomer]
            if not self._warned:
                self._warned = True
                warnings.warn(
                    f"Eventful: stream {newcomer!r} was dropped for others (max_streams="
                    f"{self.max_streams}) and starts clean, and so will all that are dropped; a "
                    "larger max_streams keeps more.",
                    stacklevel=2,
                )
        self._drop_oldest(self.max_streams - 1, named)

    def _drop_oldest(self, at_most: int, needed: Sequence[Hashable] = ()) -> None:
        """Keep so many streams; those needed or being computed stay."""
        for name in list(self._states):
            if len(self._states) <= at_most:
                break
            if name not in needed and not self._states[name].is_taken:
                del self._states[name]
                self._dropped[name] = None
        while len(self._dropped) > 64:
            self._dropped.popitem(last=False)

    def __deepcopy__(self, memo: dict[int, Any]) -> StreamStore:
        # reason: a copied model (EMA) is another model; the streams' memory is not its own.
        return StreamStore(self.max_streams)


def memory_bytes(remembered: Any) -> int:
    """Bytes of the tensors in nested containers and plain objects, each storage once."""
    storages: dict[tuple, int] = {}
    pending, seen = [remembered], set()
    while pending:
        item = pending.pop()
        if isinstance(item, Tensor):
            storage = item.untyped_storage()
            storages[item.device, storage.data_ptr()] = storage.nbytes()
        elif id(item) in seen or isinstance(item, (str, bytes, int, float, type(None))):
            continue
        else:
            seen.add(id(item))
            if isinstance(item, dict):
                pending.extend(item.values())
            elif isinstance(item, (list, tuple)):
                pending.extend(item)
            else:
                pending.extend(getattr(item, "__dict__", {}).values())
    return sum(storages.values())
