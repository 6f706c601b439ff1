"""A batch of frames through the model: each on its stream's memory, a failure only its own."""

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
    """A frame that went through the model.

    Attributes:
        frame: The frame.
        answer: Its answer; None where the model failed on it.
        error: Why there is none.
    """

    frame: Waiting
    answer: Answer | None
    error: Refused | None


class BatchRunner:
    """Runs a model on batches.

    Args:
        model: What is served.
        budget: Held over all frames; None without.
        clock: Gives seconds.
    """

    def __init__(
        self, model: ServedModel, budget: Budget | None, clock: Callable[[], float]
    ) -> None:
        self._model, self._budget, self._clock = model, budget, clock

    @property
    def missed(self) -> str | None:
        """A sentence, if the budget cannot be held now."""
        return None if self._budget is None else self._budget.missed

    def run(self, frames: Sequence[Waiting]) -> list[Computed]:
        """Compute frames of different streams, all of one shape.

        Where the model fails on several, each is computed by itself: its stream starts clean, and
        what is wrong with one is said of that one alone.
        """
        try:
            return [Computed(frame, answer, None) for frame, answer in self._answers(frames)]
        except Exception as error:  # reason: the model is the user's, and the worker goes on
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
    """What is said of a frame on which the model failed."""
    refused = Refused(
        "failed",
        f"stream {frame.stream.name!r}: the model failed on frame {frame.frame_id} "
        f"({type(error).__name__}: {one_line(error)}); send another frame.",
    )
    refused.__cause__ = error
    return refused
