"""The entry point for clients: sends each stream to its replica, and notes which streams moved.

It holds no state of a model. If it is restarted, nothing is lost but its notes: the replicas keep
their streams themselves.
"""

from __future__ import annotations

import asyncio
import hmac
from collections import Counter, OrderedDict
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mmvitaccel.errors import one_line
from mmvitaccel.serving.answers import Answer, Refused
from mmvitaccel.serving.ray_app.replica import Reply
from mmvitaccel.serving.report import WorkerReport
from mmvitaccel.serving.stream import check_name, check_token

_KNOWN = 100_000  # streams that are noted; the least recently used are dropped


class Replicas(Protocol):
    """Access to the replicas."""

    def call(self, stream: str, method: str, *args: Any) -> Awaitable[Reply]:
        """Call the replica that a stream sticks to."""

    def broadcast(self, method: str, *args: Any) -> Awaitable[list[Reply]]:
        """Call all replicas; those that have ended give no reply."""


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
    """

    def __init__(self, replicas: Replicas, answer_seconds: float = 30.0) -> None:
        self._replicas, self._answer_seconds = replicas, answer_seconds
        self._known: OrderedDict[str, _Known] = OrderedDict()
        #: Frames that got no answer from their replica, and streams that moved.
        self.counts: Counter[str] = Counter(lost_frames=0, moved_streams=0)

    async def open_stream(self, stream: str, token: str) -> None:
        """See :meth:`StreamWorker.open_stream`.

        Raises:
            Refused: As there.
        """
        known = self._known.get(check_name(stream))
        if known is not None and not _same(known.token, check_token(token)):
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
        await self._call(check_name(stream), "close_stream", token)
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
            Refused: As there, or with the reason ``lost``: the replica ended or did not answer.
        """
        given = (stream, "submit", frame_id, frame, token, size)
        try:
            reply = await self._call(*given)
        except Refused as refused:
            known = self._known.get(check_name(stream))
            if refused.reason != "unknown" or known is None or not _same(known.token, token):
                raise
            await self._call(stream, "open_stream", token, known.last_id)
            reply = await self._call(*given)
        await self._note(stream, token, reply)
        known = self._known[stream]
        known.last_id = frame_id if known.last_id is None else max(known.last_id, frame_id)
        return reply.result

    async def reports(self) -> dict[str, WorkerReport]:
        """The report of each replica, by its name.

        Raises:
            Refused: The replicas did not answer in time.
        """
        try:
            replies = await asyncio.wait_for(
                self._replicas.broadcast("report"), timeout=self._answer_seconds
            )
        except Exception as error:  # reason: Ray reports the end of a process in many ways
            raise Refused(
                "lost",
                f"the replicas gave no report within {self._answer_seconds:g} s "
                f"({type(error).__name__}: {one_line(error)[:200]}); ask again.",
            ) from error
        return {reply.replica: reply.result for reply in replies}

    async def _call(self, stream: str, method: str, *args: Any) -> Reply:
        """Call a stream's replica; raise its refusal."""
        check_name(stream)
        try:
            reply = await asyncio.wait_for(
                self._replicas.call(stream, method, stream, *args), timeout=self._answer_seconds
            )
        except Exception as error:  # reason: Ray reports the end of a process in many ways
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

    async def _note(self, stream: str, token: str, reply: Reply) -> None:
        """Note which replica has a stream; if it moved, let the others forget it."""
        known = self._known.get(stream)
        if known is None:
            self._known[stream] = _Known(token, reply.replica)
            while len(self._known) > _KNOWN:
                self._known.popitem(last=False)
            return
        self._known.move_to_end(stream)
        if known.replica != reply.replica:
            known.replica = reply.replica
            self.counts["moved_streams"] += 1
            # reason: the stream has its answer; what a replica keeps that ends, or that does not
            # answer, goes with it or by least recent use
            with suppress(Exception):
                await asyncio.wait_for(
                    self._replicas.broadcast("forget", stream, token, reply.replica),
                    timeout=self._answer_seconds,
                )


def _same(one: str, other: Any) -> bool:
    return isinstance(other, str) and hmac.compare_digest(one.encode(), other.encode())
