"""Reads of device values by the host during frames.

On a CPU a read is free. On other devices it waits until all queued work is done, and the frame
cannot be captured in a graph. A steady frame therefore reads nothing there: conditions are copied
to the host asynchronously and handled once they have arrived.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

#: Returns the value of a condition once it has arrived, None before.
Arriving = Callable[[], "bool | None"]


def reading_is_free(device: torch.device) -> bool:
    """True on a CPU; elsewhere a read waits until all queued work is done."""
    return device.type == "cpu"


class Alarms:
    """Error conditions that are detected without synchronising with the device.

    On a CPU a condition is known at once. On CUDA it is known as soon as the device has computed
    it, usually before the host asks for the next frame and otherwise a frame or more later; while
    a CUDA graph is captured, conditions are not watched.
    """

    def __init__(self) -> None:
        self._pending: list[Arriving] = []
        self._raised = False

    def watch(self, condition: Tensor) -> None:
        """Watch a condition, () bool."""
        if reading_is_free(condition.device):
            self._raised = self._raised or bool(condition)
        else:
            self._pending.append(arriving(condition))

    @property
    def raised(self) -> bool:
        """Whether any condition that has arrived was true."""
        waiting = []
        for ask in self._pending:
            value = ask()
            if value is None:
                waiting.append(ask)
            self._raised = self._raised or bool(value)
        self._pending = waiting
        return self._raised

    def clear(self) -> None:
        """Discard all conditions, including those that have not arrived."""
        self._pending.clear()
        self._raised = False


def arriving(condition: Tensor) -> Arriving:
    """Copy a condition to the host asynchronously."""
    if condition.device.type != "cuda":  # no asynchronous copy is available
        return lambda: bool(condition)
    if torch.cuda.is_current_stream_capturing():
        return lambda: False
    copy = torch.empty((), dtype=torch.bool, pin_memory=True)
    copy.copy_(condition, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record(torch.cuda.current_stream(condition.device))
    return lambda: bool(copy) if arrived.query() else None
