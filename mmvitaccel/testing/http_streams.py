"""The streams of a service over HTTP, with the methods of a worker."""

from __future__ import annotations

import re
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from mmvitaccel.serving.answers import Refused
from mmvitaccel.testing.service import Service


class Kept(NamedTuple):
    """Streams whose state the service keeps.

    Attributes:
        remembered: Their number.
        memory_bytes: Bytes of their state.
    """

    remembered: int
    memory_bytes: int


class HttpStreams:
    """Opens, closes and plays streams of a service, in place of a worker.

    Args:
        service: The service.
        most: Most frames on their way at a time.
    """

    def __init__(self, service: Service, most: int) -> None:
        self._service, self._pool = service, ThreadPoolExecutor(most)

    def open_stream(self, stream: str, token: str) -> None:
        """See :meth:`~mmvitaccel.serving.StreamWorker.open_stream`."""
        _checked(*self._service.ask("PUT", "/stream", stream, token=token))

    def close_stream(self, stream: str, token: str) -> None:
        """See :meth:`~mmvitaccel.serving.StreamWorker.close_stream`."""
        _checked(*self._service.ask("DELETE", "/stream", stream, token=token))

    def submit(
        self, stream: str, frame_id: int, frame: np.ndarray, token: str
    ) -> Future[dict[str, Any]]:
        """Send a picture (H, W, 3) uint8 as raw pixels.

        Returns:
            The future of the answer as the service says it; its exception may be a
            :class:`~mmvitaccel.serving.Refused`.
        """
        return self._pool.submit(self._frame, stream, frame_id, frame, token)

    def report(self) -> Kept:
        """The streams' memory."""
        metrics = self._service.ask("GET", "/metrics")[1]

        def total(name: str) -> int:
            values = re.findall(rf"^mmvitaccel_{name}{{.*}} (\d+)$", metrics, re.M)
            return sum(map(int, values))

        return Kept(total("remembered_streams"), total("state_bytes"))

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def _frame(self, stream: str, frame_id: int, frame: np.ndarray, token: str) -> dict[str, Any]:
        height, width = frame.shape[:2]
        size = {"x-frame-size": f"{width}x{height}"}
        given = ("POST", "/frame", stream, frame_id, frame.tobytes(), token)
        return _checked(*self._service.ask(*given, **size))


def _checked(status: int, said: Any) -> Any:
    """What was said; a refusal is raised."""
    if status == 200:
        return said
    if isinstance(said, dict) and "reason" in said:
        raise Refused(said["reason"], said["error"])
    raise RuntimeError(f"the service said {status} {said!r}")
