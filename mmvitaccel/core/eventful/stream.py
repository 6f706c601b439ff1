"""The memory of each stream.

A stream's state is a plain object of the stream. It is not stored in modules, where frames of other
streams would find it, nor in registered buffers, which are saved, cast and averaged over ranks.

Threads may compute different streams at the same time. Frames of one stream must be computed one
after the other: if two threads compute one stream, the second raises an error. It does not wait,
because waiting would hide that two videos have the same name.
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

from mmvitaccel.arguments import whole_number
from mmvitaccel.core.eventful.frame import Frame
from mmvitaccel.core.eventful.gates.host_reads import Alarms
from mmvitaccel.core.eventful.gates.importance import Matters, Objects
from mmvitaccel.core.eventful.gates.policy import Policy
from mmvitaccel.core.eventful.gates.refresh import WholeFrames
from mmvitaccel.core.eventful.motion.place import Place
from mmvitaccel.core.eventful.motion.scene import Scene
from mmvitaccel.core.locks import Lock


class Turn:
    """A call that computes frames and owns their streams meanwhile.

    Attributes:
        thread: Thread of the call. Streams of a thread that has ended are free.
    """

    def __init__(self) -> None:
        self.thread = threading.current_thread()


@dataclass
class StreamState:
    """State of one stream.

    Attributes:
        blocks: State of each block by number.
        frame_id: Number of the last frame.
        num_frames: Frames since the last reset, including the current one.
        seen: Frames since the start of the video, including the current one.
        signature: Properties that must not change: shape, dtype, device, weights.
        weights: Norms of weights that are not in ``signature``, at the last reset.
        unsound: Alarm for frames with non-finite values and for changed ``weights``.
        busy: Whether a block is running or was interrupted by an error.
        refreshed: Whether this frame is a refresh.
        policy: Policy of this frame; None if it is the same for the whole batch.
        whole: State of the refreshes.
        matters: State of the importances.
        scene: The scene, with motion.
        place: Position of the view, for a part that gets maps of a view.
        misfit_said: Whether a frame that does not show the previous scene was reported.
        heard: Number of the last message of another part of the model.
        turn: The call that computes its current frame; None between frames.
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
        """Whether a call is computing a frame of the stream."""
        return self.turn is not None and self.turn.thread.is_alive()

    def begin(self, frame: Frame, signature: Any, weights: Tensor | None = None) -> None:
        """Start a frame, with the stored state if it is valid, or after a reset.

        Args:
            frame: The frame.
            signature: Properties that must not change.
            weights: Values on the device that must not change, (n,).
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
            self.seen = 0  # a repeated frame or video, for example for timing
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
        """Check whether ``x`` is finite; otherwise the stream is reset at its next frame.

        On devices other than a CPU, at the first frame after the result has arrived.
        """
        # reason: in single precision, the sum of half-precision numbers cannot overflow.
        self.unsound.watch(torch.isfinite(x.sum(dtype=torch.float32)).logical_not())

    def memory_bytes(self) -> int:
        """Size of the state's tensors in bytes."""
        return memory_bytes([self.blocks, self.whole, self.matters, self.scene])


class StreamStore:
    """The stored streams; the least recently used is evicted first.

    Args:
        max_streams: Maximum number of stored streams.

    Raises:
        ValueError: ``max_streams`` is below 1.
    """

    def __init__(self, max_streams: int = 4) -> None:
        self.max_streams = whole_number("Eventful", "max_streams", max_streams, least=1)
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
        """Names of stored streams, least recently used first."""
        with self._lock:
            return list(self._states)

    def state(self, stream: Hashable) -> StreamState:
        """State of a stream.

        Raises:
            KeyError: The stream is not stored.
        """
        return self._states[stream]

    def begin(
        self,
        frames: Sequence[Frame],
        signature: Any,
        turn: Turn | None = None,
        weights: Tensor | None = None,
    ) -> list[StreamState | None]:
        """Start the frames of a batch and return their states; None for frames without a stream.

        Args:
            frames: Frames of the batch.
            signature: Properties that must not change in a stream.
            turn: The call that computes them and must :meth:`end` it; None without concurrency.
            weights: Values on the device that must not change, (n,).

        Raises:
            ValueError: The batch has more streams than can be stored.
            RuntimeError: Another call computes a frame of one of the streams.
        """
        named = [frame.stream for frame in frames if frame.stream is not None]
        if len(named) > self.max_streams:
            raise ValueError(
                f"Eventful: a batch of {len(named)} streams but max_streams={self.max_streams}; "
                f"set max_streams to at least {len(named)}."
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
        """Release the streams of a call that has ended, normally or with an error."""
        with self._lock:
            for state in states:
                if state is not None and state.turn is turn:
                    state.turn = None
            self._drop_oldest(self.max_streams)

    def drop(self, stream: Hashable | None = None) -> None:
        """Drop the state of a stream, or of all; unknown names are ignored.

        A frame that is being computed is not affected; the next one is a first frame.
        """
        with self._lock:
            if stream is None:
                self._states.clear()
                self._dropped.clear()
            else:
                self._states.pop(stream, None)
                self._dropped.pop(stream, None)

    def request_refresh(self, stream: Hashable | None = None) -> None:
        """Request that the next frame of a stream, or of all, is computed completely.

        Unknown names are ignored: their next frame is a first frame.
        """
        with self._lock:
            for name, state in self._states.items():
                if stream is None or name == stream:
                    state.whole.requested = True

    def saw_objects(self, stream: Hashable, objects: Objects) -> None:
        """Store the positions of objects in a stream; ignored for unknown streams."""
        with self._lock:
            if stream in self._states:
                self._states[stream].matters.objects = objects

    def memory_bytes(self, stream: Hashable | None = None) -> int:
        """Size in bytes of the tensors of a stream, or of all; 0 for an unknown stream."""
        with self._lock:
            states = [s for name, s in self._states.items() if stream is None or name == stream]
        return memory_bytes([[s.blocks, s.whole, s.matters, s.scene] for s in states])

    def _take(self, named: Sequence[Hashable], turn: Turn | None) -> dict[Hashable, StreamState]:
        """The states of a call's streams, which the call then owns."""
        for name in named:
            state = self._states.get(name)
            if state is not None and state.is_taken:
                raise RuntimeError(
                    f"Eventful: a frame of stream {name!r} was given in thread "
                    f"{threading.current_thread().name!r} while another is computed in "
                    f"{state.turn.thread.name!r}; compute the frames of a stream one after the "
                    f"other, and give every video its own name."
                )
        for name in named:  # the batch's own streams are evicted last
            if name in self._states:
                self._states.move_to_end(name)
        for name in named:
            if name not in self._states:
                self._make_room(name, named)
                self._states[name] = StreamState()
        states = {name: self._states[name] for name in named}
        for state in states.values():
            state.busy = state.busy or state.turn is not None  # its thread ended during a frame
            state.turn = turn
        return states

    def forget_finished(self, frames: Sequence[Frame]) -> None:
        """Drop the streams of a batch whose last frame it contains."""
        for frame in frames:
            with self._lock:
                state = self._states.get(frame.stream)
                # reason: counted, because frame numbers may start at 0 or 1 and have gaps
                if state is not None and state.seen >= (frame.num_frames or math.inf):
                    self.drop(frame.stream)

    def _make_room(self, newcomer: Hashable, named: Sequence[Hashable]) -> None:
        if newcomer in self._dropped:
            del self._dropped[newcomer]
            if not self._warned:
                self._warned = True
                warnings.warn(
                    f"Eventful: stream {newcomer!r} was evicted (max_streams="
                    f"{self.max_streams}) and starts with a dense frame, like all evicted streams; "
                    "a larger max_streams keeps more.",
                    stacklevel=2,
                )
        self._drop_oldest(self.max_streams - 1, named)

    def _drop_oldest(self, at_most: int, needed: Sequence[Hashable] = ()) -> None:
        """Evict streams beyond ``at_most``, but not those needed or being computed."""
        for name in list(self._states):
            if len(self._states) <= at_most:
                break
            if name not in needed and not self._states[name].is_taken:
                del self._states[name]
                self._dropped[name] = None
        while len(self._dropped) > 64:
            self._dropped.popitem(last=False)

    def __deepcopy__(self, memo: dict[int, Any]) -> StreamStore:
        # reason: a copy of the model (EMA) must not share the streams' state
        return StreamStore(self.max_streams)


def memory_bytes(remembered: Any) -> int:
    """Size in bytes of the tensors in nested containers and objects; each storage counts once."""
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
