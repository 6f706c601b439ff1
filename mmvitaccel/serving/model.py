"""The interface of a model that a worker serves."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple, Protocol, Union

import numpy as np
from torch import Tensor

from mmvitaccel.adapters.eventful.detector import EventfulDetectorHandle
from mmvitaccel.adapters.eventful.handle import EventfulHandle

Handle = Union[EventfulHandle, EventfulDetectorHandle]


class Prepared(NamedTuple):
    """A frame that is prepared for the model.

    Attributes:
        shape: Frames of equal shape may be in one batch.
        data: The input of the model.
    """

    shape: Hashable
    data: Any


class ServedModel(Protocol):
    """A model that takes frames in batches.

    Attributes:
        handle: Its Eventful handle; None for a model that computes every frame whole.
    """

    handle: Handle | None

    def prepare(self, frame: np.ndarray | Tensor) -> Prepared:
        """Prepare a frame for the model; several threads may call it at the same time.

        Args:
            frame: A picture (H, W, 3) uint8 RGB, or a tensor.

        Raises:
            Refused: The model does not accept it.
        """

    def run(self, batch: Sequence[Prepared]) -> list[Any]:
        """The outputs for frames of one shape, in memory that no later call changes."""
