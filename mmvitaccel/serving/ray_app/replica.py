"""A replica: a worker with its model, called from other processes."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mmvitaccel.serving.answers import Answer, Refused
from mmvitaccel.serving.frames import picture_of
from mmvitaccel.serving.report import WorkerReport
from mmvitaccel.serving.worker import StreamWorker


@dataclass(frozen=True)
class Reply:
    """The reply of a replica.

    Attributes:
        replica: Name of the replica.
        result: An answer, a report, a refusal, or None.
    """

    replica: str
    result: Answer | WorkerReport | Refused | None = None


class Replica:
    """Calls a worker for other processes; a refusal is returned, not raised.

    Args:
        name: A name that no other replica has.
        make: Creates the worker.
        most_seconds: A replica whose model computes a batch for longer is not healthy.
    """

    def __init__(
        self, name: str, make: Callable[[], StreamWorker], most_seconds: float = math.inf
    ) -> None:
        self.name, self.worker, self._most_seconds = name, make(), most_seconds
        # One thread, so that frames are decoded in the order of their arrival
        self._decoding = ThreadPoolExecutor(1, "decoding")

    async def open_stream(self, stream: str, token: str, after: int | None = None) -> Reply:
        """See :meth:`StreamWorker.open_stream`."""
        return self._said(lambda: self.worker.open_stream(stream, token, after))

    async def close_stream(self, stream: str, token: str) -> Reply:
        """See :meth:`StreamWorker.close_stream`."""
        return self._said(lambda: self.worker.close_stream(stream, token))

    async def forget(self, stream: str, token: str, moved_to: str) -> Reply:
        """Forget a stream that moved to another replica."""
        if moved_to != self.name:
            return await self.close_stream(stream, token)
        return Reply(self.name)

    async def submit(
        self,
        stream: str,
        frame_id: int,
        frame: bytes | np.ndarray,
        token: str,
        size: tuple[int, int] | None = None,
    ) -> Reply:
        """Compute a frame; if the caller cancels, it is left out.

        Args:
            stream: Its stream.
            frame_id: Its number in the stream.
            frame: The bytes of a JPEG or PNG file, raw pixels, or a picture.
            token: The stream's token.
            size: (width, height) of raw pixels.
        """

        def submitted() -> Any:
            given = frame
            if size is not None:
                given = picture_of(frame, *size, self.worker.limits)
            return self.worker.submit(stream, frame_id, given, token)

        try:
            loop = asyncio.get_running_loop()
            waiting = await loop.run_in_executor(self._decoding, submitted)
            answer = await asyncio.wrap_future(waiting)
        except Refused as refused:
            return Reply(self.name, Refused(refused.reason, str(refused)))
        return Reply(self.name, replace_output(answer))

    async def report(self) -> Reply:
        """See :meth:`StreamWorker.report`."""
        return Reply(self.name, self.worker.report())

    def check_health(self) -> None:
        """Called by Ray Serve from time to time.

        Raises:
            RuntimeError: The worker's thread has ended, or its model hangs.
        """
        if not self.worker.is_alive:
            raise RuntimeError(f"replica {self.name}: the worker's thread has ended.")
        seconds = self.worker.busy_seconds
        if seconds > self._most_seconds:
            raise RuntimeError(
                f"replica {self.name}: the model has computed one batch for {seconds:.0f} s, above "
                f"the limit of {self._most_seconds:g}."
            )

    def _said(self, call: Callable[[], object]) -> Reply:
        try:
            call()
        except Refused as refused:
            return Reply(self.name, Refused(refused.reason, str(refused)))
        return Reply(self.name)


def replace_output(answer: Answer) -> Answer:
    """The answer with numpy arrays in place of tensors."""
    return Answer(**{**vars(answer), "output": _arrays(answer.output)})


def _arrays(output: Any) -> Any:
    if isinstance(output, torch.Tensor):
        return output.numpy()
    if hasattr(output, "bboxes"):  # instances of OpenMMLab; their masks stay here
        return {name: output.get(name).numpy() for name in ("bboxes", "scores", "labels")}
    if isinstance(output, dict):
        return {name: _arrays(value) for name, value in output.items()}
    if isinstance(output, (list, tuple)):
        return [_arrays(value) for value in output]
    return output
