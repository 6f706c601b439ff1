"""A worker's counts, and the report of them."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

import numpy as np

from mmvitaccel.serving.answers import OF_ACCEPTED, REASONS, Refused
from mmvitaccel.serving.stream import StreamCounts

#: Number of latest frames that the percentiles cover.
REMEMBERED = 1000


@dataclass(frozen=True)
class WorkerReport:
    """Counts, times, streams and memory of a worker.

    All accepted frames are in ``counts`` (without ``refused``) or in ``waiting``.

    Attributes:
        counts: Frames of all streams so far, closed ones included.
        refusals: Refused frames and streams by reason.
        evictions: Streams that were forgotten to make room.
        streams: Open streams.
        remembered: Open streams whose state the model keeps.
        memory_bytes: Bytes of their state.
        waiting: Frames that wait or are being computed.
        milliseconds: Percentiles 50, 90 and 99 of the time from a frame's arrival to its answer,
            over the last 1000 frames; empty before the first.
        missed: A message if the budget cannot be held now.
    """

    counts: StreamCounts
    refusals: dict[str, int]
    evictions: int
    streams: int
    remembered: int
    memory_bytes: int
    waiting: int
    milliseconds: dict[int, float] = field(default_factory=dict)
    missed: str | None = None


class Tally:
    """The counters of a worker, which holds a lock around each call."""

    def __init__(self) -> None:
        self._counts = StreamCounts()
        self._refusals: Counter[str] = Counter()
        self._evictions = 0
        self._seconds: deque[float] = deque(maxlen=REMEMBERED)

    def add(self, counts: StreamCounts, kind: str) -> None:
        """Count one frame of a kind, for its stream and in total."""
        for each in (counts, self._counts):
            setattr(each, kind, getattr(each, kind) + 1)

    @contextmanager
    def refusals_counted(
        self,
        counts: StreamCounts | None = None,
        lock: AbstractContextManager = nullcontext(),  # noqa: B008
    ) -> Iterator[None]:
        """Count the refusals that are raised in a block.

        Args:
            counts: Counts of the stream, if it is known.
            lock: Held while counting.
        """
        try:
            yield
        except Refused as refused:
            with lock:
                self._counts.refused += 1
                self._refusals[refused.reason] += 1
                if counts is not None:
                    counts.refused += 1
            raise

    def evicted(self, stream: str) -> None:
        """Count a stream that was forgotten."""
        self._evictions += 1

    def took(self, seconds: float) -> None:
        """Record the seconds from a frame's arrival to its answer."""
        self._seconds.append(seconds)

    def report(self, **now: object) -> WorkerReport:
        """The counts so far, with the current values of the other fields."""
        shares = (50, 90, 99)
        times = np.percentile(self._seconds, shares).tolist() if self._seconds else []
        return WorkerReport(
            counts=StreamCounts(**vars(self._counts)),
            refusals={
                reason: self._refusals[reason]
                for reason in REASONS
                if reason not in OF_ACCEPTED or self._refusals[reason]
            },
            evictions=self._evictions,
            milliseconds={share: 1e3 * time for share, time in zip(shares, times)},
            **now,
        )
