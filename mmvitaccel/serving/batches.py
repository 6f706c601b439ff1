"""Runs the model on batches: each frame on its stream's memory, failures isolated per frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch

from mmvitaccel.budget.budget import Budget
from mmvitaccel.errors import one_line
from mmvitaccel.serving.answers import Answer, Refused
from mmvitaccel.serving.model import ServedModel
from mmvitaccel.serving.stream import Waiting


class Computed(NamedTuple):
    """The result of a frame.

    Attributes:
        frame: The frame.
        answer: Its answer; None if the model failed on it.
        error: Why there is no answer; None if there is one.
    """

    frame: Waiting
    answer: Answer | None
    error: Refused | None


class BatchRunner:
    """Runs a model on batches.

    Args:
        model: The model that is served.
        budget: Held over the frames of all streams; None for no budget.
        clock: Returns seconds.
    """

    def __init__(
        self, model: ServedModel, budget: Budget | None, clock: Callable[[], float]
    ) -> None:
        self._model, self._budget, self._clock = model, budget, clock

    @property
    def missed(self) -> str | None:
        """A message if the budget cannot be held now, else None."""
        return None if self._budget is None else self._budget.missed

    def run(self, frames: Sequence[Waiting]) -> list[Computed]:
        """Compute frames of different streams, all of one shape.

        If the model fails on a batch, each frame is computed again by itself, so that an error
        reaches only the frame that causes it.
        """
        try:
            return [Computed(frame, answer, None) for frame, answer in self._answers(frames)]
        except Exception as error:  # A user's model may raise anything; the worker goes on
            if len(frames) == 1:
                return [Computed(frames[0], None, _failure(frames[0], error))]
        return [computed for frame in frames for computed in self.run([frame])]

    def _answers(self, frames: Sequence[Waiting]) -> list[tuple[Waiting, Answer]]:
        handle, start = self._model.handle, self._clock()
        names = [frame.stream.name for frame in frames]
        numbers = [frame.frame_id for frame in frames]
        naming = nullcontext() if handle is None else handle.stream(names, numbers)
        budget = nullcontext() if self._budget is None else self._budget.frame()
        with torch.no_grad(), budget as record, naming:
            if record is not None:
                record.images = len(frames)
            outputs = self._model.run([frame.prepared for frame in frames])
        took = 1e3 * (self._clock() - start) / len(frames)
        infos = [None] * len(frames) if handle is None else handle.frames
        return [
            (
                frame,
                Answer(
                    stream=frame.stream.name,
                    frame_id=frame.frame_id,
                    output=output,
                    whole=info is None or info.first or info.refreshed,
                    computed=1.0 if info is None else info.computed,
                    batch=len(frames),
                    milliseconds=took,
                    waited=1e3 * (start - frame.arrived),
                ),
            )
            for frame, output, info in zip(frames, outputs, infos)
        ]


def _failure(frame: Waiting, error: Exception) -> Refused:
    """The error of a frame on which the model failed."""
    refused = Refused(
        "failed",
        f"stream {frame.stream.name!r}: the model failed on frame {frame.frame_id} "
        f"({type(error).__name__}: {one_line(error)}); send another frame.",
    )
    refused.__cause__ = error
    return refused
