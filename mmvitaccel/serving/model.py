"""What a worker asks of a model."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple, Protocol, Union

import numpy as np
from torch import Tensor

from mmvitaccel.adapters.eventful.detector import EventfulDetectorHandle
from mmvitaccel.adapters.eventful.handle import EventfulHandle

Handle = Union[EventfulHandle, EventfulDetectorHandle]


class Prepared(NamedTuple):
    """A frame as a model takes it.

    Attributes:
        shape: Frames of one shape may go together.
        data: What the model makes of it.
    """

    shape: Hashable
    data: Any


class ServedModel(Protocol):
    """A model that takes frames in batches.

    Attributes:
        handle: Of Eventful on it; None for a model that is computed whole.
    """

    handle: Handle | None

    def prepare(self, frame: np.ndarray | Tensor) -> Prepared:
        """Make of a frame what the model takes; called by several threads at a time.

        Args:
            frame: A picture (H, W, 3) uint8 RGB, or a tensor.

        Raises:
            Refused: The model does not take it.
        """

    def run(self, batch: Sequence[Prepared]) -> list[Any]:
        """What the model finds in frames of one shape, in memory that nobody else changes."""
