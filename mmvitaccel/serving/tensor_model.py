"""A model of torch in service, from tensors to tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmvitaccel.adapters.eventful.handle import EventfulHandle
from mmvitaccel.serving.answers import Refused
from mmvitaccel.serving.model import Prepared


class TensorModel:
    """Serves a model that takes a batch of tensors.

    Args:
        model: A model in evaluation mode; takes ``(B, *shape)`` and returns tensors with the batch
            as the first dimension, also in tuples, lists and dicts.
        shape: Shape of a frame, such as (3, 224, 224).
        handle: The handle that ``apply_eventful`` returned for it; None for a model that computes
            every frame whole.
        prepare: Converts a picture (H, W, 3) uint8 RGB to a tensor of that shape; None if frames
            are tensors. Several threads may call it at the same time.

    Raises:
        ValueError: The model is in training mode.
    """

    def __init__(
        self,
        model: nn.Module,
        shape: Sequence[int],
        handle: EventfulHandle | None = None,
        prepare: Callable[[np.ndarray], Tensor] | None = None,
    ) -> None:
        if model.training:
            raise ValueError(
                f"TensorModel: the {type(model).__name__} is in training mode; call model.eval()."
            )
        self.model, self.shape, self.handle = model, tuple(shape), handle
        self._prepare = prepare
        weight = next(model.parameters())
        self._device, self._dtype = weight.device, weight.dtype

    def prepare(self, frame: np.ndarray | Tensor) -> Prepared:
        """See :class:`~mmvitaccel.serving.model.ServedModel`."""
        if isinstance(frame, np.ndarray):
            if self._prepare is None:
                raise Refused(
                    "frame",
                    f"this model takes tensors {self.shape}, not pictures; give TensorModel a "
                    "function `prepare`.",
                )
            frame = self._prepare(frame)
        if tuple(frame.shape) != self.shape or not frame.is_floating_point():
            raise Refused(
                "frame",
                f"the frame is {tuple(frame.shape)} {frame.dtype}; this model takes {self.shape} "
                f"{self._dtype}.",
            )
        if not bool(torch.isfinite(frame).all()):
            raise Refused("frame", "the frame contains NaN or infinity; fix its source.")
        # A camera may write its next frame into the same memory before this one's turn
        return Prepared(self.shape, frame.detach().clone())

    def run(self, batch: Sequence[Prepared]) -> list[Any]:
        """The output for each frame, on the CPU, as a batch of 1."""
        x = torch.stack([prepared.data.to(self._device, self._dtype) for prepared in batch])
        out = self.model(x)
        return [_of_one(out, place) for place in range(len(batch))]


def _of_one(out: Any, place: int) -> Any:
    """A copy of one frame's part of a batch's output."""
    if isinstance(out, Tensor):
        return out[place : place + 1].to("cpu", copy=True)
    if isinstance(out, dict):
        return {name: _of_one(value, place) for name, value in out.items()}
    if isinstance(out, (list, tuple)):
        return [_of_one(value, place) for value in out]
    return out
