"""What a worker counts, and how it says it to people and to Prometheus."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

import numpy as np

from mmvitaccel.serving.answers import REASONS, Refused
from mmvitaccel.serving.stream import StreamCounts

#: Frames that percentiles are taken over.
REMEMBERED = 1000


@dataclass(frozen=True)
class WorkerReport:
    """Where a worker stands. What was accepted is ``counts`` without ``refused``, and ``waiting``.

    Attributes:
        counts: Of all streams so far, closed ones included.
        refusals: Frames and streams that were refused, by reason.
        evictions: Streams that were forgotten to make room.
        streams: That are open.
        remembered: Of these, those that the model remembers.
        memory_bytes: What their memory takes.
        waiting: Frames that wait or are computed now.
        milliseconds: From the arrival of a frame to its answer, over the last 1000 frames:
            percentiles 50, 90 and 99; none before the first.
        missed: A sentence, if the budget cannot be held now.
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
    """Counts, for a worker that holds a lock around each call."""

    def __init__(self) -> None:
        self._counts = StreamCounts()
        self._refusals: Counter[str] = Counter()
        self._evictions = 0
        self._seconds: deque[float] = deque(maxlen=REMEMBERED)

    def add(self, counts: StreamCounts, kind: str) -> None:
        """A frame of a stream is one of that kind."""
        for each in (counts, self._counts):
            setattr(each, kind, getattr(each, kind) + 1)

    @contextmanager
    def refusals_counted(
        self,
        counts: StreamCounts | None = None,
        lock: AbstractContextManager = nullcontext(),  # noqa: B008
    ) -> Iterator[None]:
        """Count what is refused in a block.

        Args:
            counts: Of a stream that is known.
            lock: Held while it is counted.
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
        """A stream was forgotten."""
        self._evictions += 1

    def took(self, seconds: float) -> None:
        """A frame was answered so long after it arrived."""
        self._seconds.append(seconds)

    def report(self, **now: object) -> WorkerReport:
        """The counts so far, with what is so now."""
        shares = (50, 90, 99)
        times = np.percentile(self._seconds, shares).tolist() if self._seconds else []
        return WorkerReport(
            counts=StreamCounts(**vars(self._counts)),
            refusals={reason: self._refusals[reason] for reason in REASONS},
            evictions=self._evictions,
            milliseconds={share: 1e3 * time for share, time in zip(shares, times)},
            **now,
        )
