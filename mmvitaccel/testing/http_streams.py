"""A client of a service's streams over HTTP, with the interface of a worker."""

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
        remembered: Number of streams.
        memory_bytes: Size of their state in bytes.
    """

    remembered: int
    memory_bytes: int


class HttpStreams:
    """Opens and closes streams of a service and sends frames, with the interface of a worker.

    Args:
        service: The service.
        most: Maximum number of frames in flight.
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
        """Send a frame (H, W, 3) uint8 as raw pixels.

        Returns:
            The future of the service's answer; its exception can be a
            :class:`~mmvitaccel.serving.Refused`.
        """
        return self._pool.submit(self._frame, stream, frame_id, frame, token)

    def report(self) -> Kept:
        """Return the number of the streams with state, and its size."""
        metrics = self._service.ask("GET", "/metrics")[1]

        def total(name: str) -> int:
            values = re.findall(rf"^mmvitaccel_{name}{{.*}} (\d+)$", metrics, re.M)
            return sum(map(int, values))

        return Kept(total("remembered_streams"), total("state_bytes"))

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown()

    def _frame(self, stream: str, frame_id: int, frame: np.ndarray, token: str) -> dict[str, Any]:
        height, width = frame.shape[:2]
        size = {"x-frame-size": f"{width}x{height}"}
        given = ("POST", "/frame", stream, frame_id, frame.tobytes(), token)
        return _checked(*self._service.ask(*given, **size))


def _checked(status: int, content: Any) -> Any:
    """Return the content of an answer; raise an error if it is not a success."""
    if status == 200:
        return content
    if isinstance(content, dict) and "reason" in content:
        raise Refused(content["reason"], content["error"])
    raise RuntimeError(f"the service answered with status {status}: {content!r}")
