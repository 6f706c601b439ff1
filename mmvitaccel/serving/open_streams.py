"""The open streams and their waiting frames. The worker holds a lock around each call."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mmvitaccel.serving.answers import Refused
from mmvitaccel.serving.report import Tally
from mmvitaccel.serving.stream import Stream, Waiting, check_name, check_token

#: Frames that get no answer, each with the error that its caller gets.
LeftOut = list[tuple[Waiting, Refused]]


class OpenStreams:
    """Opens and closes streams, and queues their frames.

    Args:
        max_open: Most open streams.
        max_waiting: Most waiting frames of one stream.
        most_in_all: Most waiting frames of all streams.
        idle_seconds: A stream without a frame for so long may be closed to make room for another.
        tally: Counts the frames that are left out.
        on_closed: Called with the name of each stream that is closed.

    Attributes:
        records: The open streams by name.
    """

    def __init__(
        self,
        max_open: int,
        max_waiting: int,
        most_in_all: int,
        idle_seconds: float,
        tally: Tally,
        on_closed: Callable[[str], None],
    ) -> None:
        self._max_open, self._max_waiting, self._most_in_all = max_open, max_waiting, most_in_all
        self._idle_seconds, self._tally, self._on_closed = idle_seconds, tally, on_closed
        self.records: dict[str, Stream] = {}

    @property
    def num_waiting(self) -> int:
        """Number of waiting frames."""
        return sum(len(record.waiting) for record in self.records.values())

    def open(self, name: str, token: str, now: float, after: int | None = None) -> LeftOut:
        """Open a stream; if it is open with the same token, nothing changes.

        Raises:
            Refused: See :meth:`StreamWorker.open_stream`.
        """
        check_name(name)
        check_token(token)
        left_out: LeftOut = []
        if name in self.records:
            self.records[name].check_token(token)
            self.records[name].used = now
            return left_out
        if len(self.records) >= self._max_open:
            left_out = self._close_idle(now)
        self.records[name] = Stream(name, token, now, after)
        return left_out

    def of(self, name: str, token: str) -> Stream:
        """The open stream of a name and token.

        Raises:
            Refused: It is not open, or has another token.
        """
        record = self.records.get(check_name(name))
        if record is None:
            raise Refused("unknown", f"stream {name!r} is not open; open it first.")
        record.check_token(token)
        return record

    def close(self, record: Stream) -> LeftOut:
        """Close a stream; its waiting frames are left out."""
        record.is_open = False
        del self.records[record.name]
        self._on_closed(record.name)
        left_out: LeftOut = []
        while record.waiting:
            left_out += self._leave_out(record, "closed", "the stream was closed")
        return left_out

    def accept(self, frame: Waiting) -> LeftOut:
        """Queue a frame, and leave out the oldest ones of a full queue.

        Raises:
            Refused: The stream was closed, or the frames of all streams reach the limit.
        """
        record = frame.stream
        if not record.is_open:
            raise Refused("closed", f"stream {record.name!r} was closed; open it again.")
        left_out: LeftOut = []
        while len(record.waiting) >= self._max_waiting:
            newer = f"frame {frame.frame_id} arrived before it was computed"
            left_out += self._leave_out(record, "dropped", newer)
        waiting = self.num_waiting
        if waiting >= self._most_in_all:
            raise Refused(
                "full", f"{waiting} frames are waiting, which is the limit; send fewer per second."
            )
        record.last_id, record.used = frame.frame_id, frame.arrived
        record.waiting.append(frame)
        return left_out

    def take(self, most: Callable[[Sequence[str]], int]) -> list[Waiting]:
        """Take the frame that has waited longest, with frames of other streams of its shape.

        Args:
            most: Returns how many frames may be in one batch, given the names of their streams.

        Returns:
            The frames, without those whose answer was cancelled.
        """
        fronts = [record.waiting[0] for record in self.records.values() if record.waiting]
        fronts.sort(key=lambda frame: frame.arrived)
        fits = [frame for frame in fronts if frame.prepared.shape == fronts[0].prepared.shape]
        batch = []
        for frame in fits[: most([frame.stream.name for frame in fits])]:
            frame.stream.waiting.popleft()
            if frame.answer.set_running_or_notify_cancel():
                batch.append(frame)
            else:
                self._tally.add(frame.stream.counts, "cancelled")
        return batch

    def _close_idle(self, now: float) -> LeftOut:
        """Close the stream that was idle longest, if it was idle for ``idle_seconds``."""
        oldest = min(self.records.values(), key=lambda record: record.used)
        if now - oldest.used < self._idle_seconds:
            raise Refused(
                "full",
                f"{len(self.records)} streams are open, which is the limit; close one or try again "
                "later.",
            )
        return self.close(oldest)

    def _leave_out(self, record: Stream, reason: str, why: str) -> LeftOut:
        """Remove a stream's oldest frame; its caller is told later, outside the worker's lock."""
        frame = record.waiting.popleft()
        if not frame.answer.set_running_or_notify_cancel():
            self._tally.add(record.counts, "cancelled")
            return []
        self._tally.add(record.counts, "dropped")
        sentence = f"stream {record.name!r}: frame {frame.frame_id} was left out: {why}."
        return [(frame, Refused(reason, sentence))]


def tell(left_out: LeftOut) -> None:
    """Set the errors of frames that were left out."""
    for frame, refused in left_out:
        frame.answer.set_exception(refused)
