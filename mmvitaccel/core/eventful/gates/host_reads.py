"""What the host may ask of tensors while frames are computed.

On a CPU a read is free. Elsewhere it waits until all queued work is done, and makes it impossible
to capture the frame in a graph. There, a steady frame reads nothing: conditions that the device
finds are copied to the host on the side, and noticed once they have arrived.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

#: Gives the value of a condition once it has arrived, None before.
Arriving = Callable[[], "bool | None"]


def reading_is_free(device: torch.device) -> bool:
    """True on a CPU; elsewhere a read waits until all queued work is done."""
    return device.type == "cpu"


class Alarms:
    """Conditions that mean trouble, noticed without waiting for the device that finds them.

    On a CPU a condition is known at once. On CUDA it is known as soon as the device has computed
    it, usually before the host asks for the next frame and otherwise a frame or more later; while
    a CUDA graph is captured, conditions are not watched.
    """

    def __init__(self) -> None:
        self._pending: list[Arriving] = []
        self._raised = False

    def watch(self, condition: Tensor) -> None:
        """Note a condition, () bool."""
        if reading_is_free(condition.device):
            self._raised = self._raised or bool(condition)
        else:
            self._pending.append(arriving(condition))

    @property
    def raised(self) -> bool:
        """Whether any condition that is known by now was true."""
        waiting = []
        for ask in self._pending:
            value = ask()
            if value is None:
                waiting.append(ask)
            self._raised = self._raised or bool(value)
        self._pending = waiting
        return self._raised

    def clear(self) -> None:
        """Forget all conditions, also those that have not arrived."""
        self._pending.clear()
        self._raised = False


def arriving(condition: Tensor) -> Arriving:
    """Copy a condition to the host without waiting for it."""
    if condition.device.type != "cuda":  # no way is known to ask without waiting
        return lambda: bool(condition)
    if torch.cuda.is_current_stream_capturing():
        return lambda: False
    copy = torch.empty((), dtype=torch.bool, pin_memory=True)
    copy.copy_(condition, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record(torch.cuda.current_stream(condition.device))
    return lambda: bool(copy) if arrived.query() else None
