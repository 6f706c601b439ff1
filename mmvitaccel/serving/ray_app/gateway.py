"""The entry point for clients: sends each stream to its replica, and notes which streams moved.

It holds no state of a model. If it is restarted, nothing is lost but its notes: the replicas keep
their streams themselves.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from mmvitaccel.errors import one_line
from mmvitaccel.serving.answers import Answer, Refused
from mmvitaccel.serving.ray_app.replica import Reply
from mmvitaccel.serving.report import WorkerReport
from mmvitaccel.serving.stream import check_name, check_token, same_token

_KNOWN = 100_000  # streams that are noted; the least recently used are dropped
# A replica drops what is too much; only one that hangs has so many of a stream, and they
# would take the place of other streams' frames
_MOST_UNANSWERED = 32  # frames of a stream


class Said(NamedTuple):
    """What the replicas said to a call of all of them.

    Attributes:
        replies: Of those that replied in time.
        silent: Names of the others.
    """

    replies: list[Reply]
    silent: list[str]


class Replicas(Protocol):
    """Access to the replicas."""

    def call(self, stream: str, method: str, *args: Any) -> Awaitable[Reply]:
        """Call the replica that a stream sticks to."""

    def broadcast(self, seconds: float, method: str, *args: Any) -> Awaitable[Said]:
        """Call all replicas; those that do not reply within so many seconds are silent."""


async def collect(asked: Iterable[Awaitable[Reply]], names: set[str], seconds: float) -> Said:
    """The replies that come within so many seconds.

    Args:
        asked: A reply of each replica; a replica that ended raises an error.
        names: Of the replicas.
        seconds: How long to wait for them.
    """
    tasks = [asyncio.ensure_future(each) for each in asked]
    try:
        done, _ = await asyncio.wait(tasks, timeout=seconds) if tasks else ((), ())
    finally:
        for task in tasks:  # those that are late
            task.cancel()
    replies = [task.result() for task in done if not task.cancelled() and task.exception() is None]
    return Said(replies, sorted(names - {reply.replica for reply in replies}))


@dataclass
class _Known:
    """A stream's token, the replica that answered last, and its last answered frame."""

    token: str
    replica: str
    last_id: int | None = None


class Gateway:
    """Serves streams on several replicas.

    Args:
        replicas: The replicas.
        answer_seconds: How long to wait for a replica's answer.
        report_seconds: How long to wait for the report of each replica.
    """

    def __init__(
        self, replicas: Replicas, answer_seconds: float = 30.0, report_seconds: float = 2.0
    ) -> None:
        self._replicas = replicas
        self._answer_seconds, self._report_seconds = answer_seconds, report_seconds
        self._known: OrderedDict[str, _Known] = OrderedDict()
        # by token too, so that whoever has another one takes no place of the stream's
        self._unanswered: Counter[tuple[str, str]] = Counter()
        self._closes = 0  # of all streams so far
        self._closing: Counter[str] = Counter()  # requests that close a stream now
        #: Frames that got no answer from their replica, streams that moved, and HTTP requests that
        #: got a refusal.
        self.counts: Counter[str] = Counter(lost_frames=0, moved_streams=0, refused_requests=0)

    async def open_stream(self, stream: str, token: str) -> None:
        """See :meth:`StreamWorker.open_stream`.

        Raises:
            Refused: As there.
        """
        known = self._known.get(check_name(stream))
        if known is not None and not same_token(known.token, check_token(token)):
            raise Refused(
                "token", f"stream {stream!r} was opened with another token; use that one."
            )
        after = None if known is None else known.last_id
        await self._note(stream, token, await self._call(stream, "open_stream", token, after))

    async def close_stream(self, stream: str, token: str) -> None:
        """See :meth:`StreamWorker.close_stream`.

        Raises:
            Refused: As there.
        """
        self._closing[check_name(stream)] += 1
        try:
            await self._call(stream, "close_stream", token)
        except Refused as refused:
            if refused.reason != "unknown" or not self._knows(stream, token):
                raise
            await self._forget(stream, token, "")  # it is where it was before replicas changed
        finally:
            self._closing[stream] -= 1
            if not self._closing[stream]:
                del self._closing[stream]
        self._closes += 1
        self._known.pop(stream, None)

    async def submit(
        self,
        stream: str,
        frame_id: int,
        frame: bytes | np.ndarray,
        token: str,
        size: tuple[int, int] | None = None,
    ) -> Answer:
        """Answer a stream's next frame; see :meth:`StreamWorker.submit`.

        A stream that moves to another replica starts there with a frame that is computed whole, and
        the previous replica forgets it.

        Args:
            stream: An open stream.
            frame_id: An integer above that of the stream's last frame.
            frame: The bytes of a JPEG or PNG file, raw pixels, or a picture (H, W, 3) uint8 RGB.
            token: The stream's token.
            size: (width, height) of raw pixels, rows of RGB; else None.

        Raises:
            Refused: As there, or with the reason ``lost``: the replica ended or did not answer;
                ``full`` where too many frames of the stream have no answer yet.
        """
        key = (check_name(stream), check_token(token))
        if self._unanswered[key] >= _MOST_UNANSWERED:
            raise Refused(
                "full",
                f"stream {stream!r}: {_MOST_UNANSWERED} frames have no answer yet, which is the "
                "limit; wait for answers.",
            )
        self._unanswered[key] += 1
        try:
            return await self._answered(stream, frame_id, frame, token, size)
        finally:
            self._unanswered[key] -= 1
            if not self._unanswered[key]:
                del self._unanswered[key]

    async def _answered(
        self,
        stream: str,
        frame_id: int,
        frame: bytes | np.ndarray,
        token: str,
        size: tuple[int, int] | None,
    ) -> Answer:
        """The answer of a frame's replica, where the stream is opened if it moved there."""
        given = (stream, "submit", frame_id, frame, token, size)
        before, closes = self._known.get(stream), self._closes
        try:
            reply = await self._call(*given)
        except Refused as refused:
            moved = self._knows(stream, token) and stream not in self._closing
            if refused.reason != "unknown" or not moved:
                raise
            before = self._known[stream]
            await self._call(stream, "open_stream", token, before.last_id)
            reply = await self._call(*given)
        # A stream that was closed meanwhile is not known any more, and its name is free
        if self._closes == closes if before is None else self._known.get(stream) is before:
            known = await self._note(stream, token, reply)
            known.last_id = frame_id if known.last_id is None else max(known.last_id, frame_id)
        return reply.result

    async def reports(self) -> tuple[dict[str, WorkerReport], list[str]]:
        """The report of each replica by its name, and the names of those that gave none in time.

        Raises:
            Refused: There are no replicas.
        """
        try:
            said = await self._replicas.broadcast(self._report_seconds, "report")
        except Exception as error:  # Ray reports the end of a process in many ways
            raise Refused(
                "lost",
                f"no replica can be asked for a report ({type(error).__name__}: "
                f"{one_line(error)[:200]}); ask again.",
            ) from error
        return {reply.replica: reply.result for reply in said.replies}, said.silent

    async def _call(self, stream: str, method: str, *args: Any) -> Reply:
        """Call a stream's replica; raise its refusal."""
        check_name(stream)
        try:
            reply = await asyncio.wait_for(
                self._replicas.call(stream, method, stream, *args), timeout=self._answer_seconds
            )
        except Exception as error:  # Ray reports the end of a process in many ways
            self.counts["lost_frames"] += method == "submit"
            raise Refused(
                "lost",
                f"stream {stream!r}: its replica ended or gave no answer within "
                f"{self._answer_seconds:g} s ({type(error).__name__}: {one_line(error)[:200]}); "
                "send the next frame, which another replica computes whole.",
            ) from error
        if isinstance(reply.result, Refused):
            raise reply.result
        return reply

    def _knows(self, stream: str, token: str) -> bool:
        """Whether a stream was opened with that token."""
        known = self._known.get(stream)
        return known is not None and same_token(known.token, token)

    async def _note(self, stream: str, token: str, reply: Reply) -> _Known:
        """Note which replica has a stream; if it moved, let the others forget it."""
        known = self._known.get(stream)
        if known is None:
            known = self._known[stream] = _Known(token, reply.replica)
            while len(self._known) > _KNOWN:
                self._known.popitem(last=False)
            return known
        self._known.move_to_end(stream)
        if known.replica != reply.replica:
            known.replica = reply.replica
            self.counts["moved_streams"] += 1
            await self._forget(stream, token, reply.replica)
        return known

    async def _forget(self, stream: str, token: str, moved_to: str) -> None:
        """Let all replicas but one forget a stream.

        What a replica keeps that ends, or that does not answer, goes with it or by least recent
        use.
        """
        with suppress(Exception):
            await self._replicas.broadcast(self._report_seconds, "forget", stream, token, moved_to)
