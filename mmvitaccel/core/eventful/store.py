"""The stored streams of a model, of which the least recently used is evicted first.

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
from typing import Any

from torch import Tensor

from mmvitaccel.arguments import whole_number
from mmvitaccel.core.eventful.frame import Frame
from mmvitaccel.core.eventful.gates.importance import Objects
from mmvitaccel.core.eventful.stream import StreamState, Turn, memory_bytes
from mmvitaccel.core.locks import Lock


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
                # Counted, because frame numbers may start at 0 or 1 and have gaps
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
        # A copy of the model (EMA) must not share the streams' state
        return StreamStore(self.max_streams)
