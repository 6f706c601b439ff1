"""The streams whose state a model keeps, evicted least recently used first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from mmvitaccel.serving.model import Handle

# Frames of a stream after which its bytes are measured again; they hardly change after the second.
_MEASURE_EVERY = 64


class KeptStreams:
    """The streams whose state a model keeps, the least recently used first.

    Args:
        handle: The model's Eventful handle; None for a model without state.
        max_streams: Most streams that are kept.
        max_bytes: Most bytes of their state; None for no limit.
        on_evicted: Called with the name of each stream that is evicted.

    Attributes:
        bytes: Bytes of state by the stream's name.
    """

    def __init__(
        self,
        handle: Handle | None,
        max_streams: int,
        max_bytes: int | None,
        on_evicted: Callable[[str], None],
    ) -> None:
        self._handle, self.max_streams, self.max_bytes = handle, max_streams, max_bytes
        self._on_evicted = on_evicted
        self.bytes: OrderedDict[str, int] = OrderedDict()
        self._age: dict[str, int] = {}
        self._largest = 0  # bytes of the largest stream so far

    @property
    def total_bytes(self) -> int:
        """Bytes of all streams."""
        return sum(self.bytes.values())

    def most_together(self, wanted: Sequence[str]) -> int:
        """How many of the wanted streams may be in one batch."""
        most = min(len(wanted), self.max_streams)
        if self._handle is None or self.max_bytes is None:
            return most
        if not self._largest:  # the size of a stream is known after the first one
            return min(most, 1)
        return min(most, max(self.max_bytes // self._largest, 1))

    def make_room(self, names: Sequence[str]) -> None:
        """Evict streams, the least recently used first, until those of a batch fit."""
        if self._handle is None:
            return
        for name in names:
            if name in self.bytes:
                self.bytes.move_to_end(name)
        new = [name for name in names if name not in self.bytes]
        for name in [name for name in self.bytes if name not in names]:
            if len(self.bytes) + len(new) <= self.max_streams and self._fits(len(new)):
                break
            self._evict(name)

    def note(self, names: Sequence[str], whole: Sequence[bool]) -> None:
        """Record a computed batch; where its state is above the limit, evict its streams too."""
        if self._handle is None:
            return
        for name, began in zip(names, whole):
            age = 0 if began else self._age.get(name, 0) + 1
            if age < 2 or age % _MEASURE_EVERY == 0:
                self.bytes[name] = self._handle.bytes_of(name)
                self._largest = max(self._largest, self.bytes[name])
            self._age[name] = age
        for name in list(self.bytes):
            if self._fits(0):
                break
            self._evict(name)

    def drop(self, name: str) -> None:
        """Forget a stream, if it is kept."""
        if self._handle is not None:
            self._handle.reset(name)
        self.bytes.pop(name, None)
        self._age.pop(name, None)

    def _fits(self, new: int) -> bool:
        if self.max_bytes is None:
            return True
        return self.total_bytes + new * self._largest <= self.max_bytes

    def _evict(self, name: str) -> None:
        self.drop(name)
        self._on_evicted(name)
