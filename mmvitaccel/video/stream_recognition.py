"""Sliding-window recognition of a stream, where each time step is encoded once.

The spatial encoder's class token of a step does not depend on the other steps, so those of the
window are kept and only the newest step's is computed; the temporal encoder then runs over the
window. That holds for a dense ViViT as for an eventful one, whose spatial state goes on from step
to step.
"""

from __future__ import annotations

import copy
import time
from collections import deque
from dataclasses import dataclass

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmvitaccel.core.eventful.frame import Frame, streams
from mmvitaccel.core.macs.counter import MacsCounter
from mmvitaccel.errors import UserError
from mmvitaccel.runner.attached_hooks import take_off


@dataclass(frozen=True)
class StepResult:
    """Result of one step.

    Attributes:
        number: Number of the step, from 0.
        scores: Probabilities (classes,) by name; a head of one classifier has the name ''. None
            until the window is full.
        ms: Milliseconds of the step, with preprocessing on the device, without decoding.
        macs: Multiply-adds of the step; None if not counted.
        dense_ms: Milliseconds of the same step without any method; None if not measured.
    """

    number: int
    scores: dict[str, Tensor] | None
    ms: float
    macs: int | None
    dense_ms: float | None


class StreamRecognizer:
    """A recognizer with a ViViT for the steps of one stream.

    Args:
        model: In evaluation mode, on its device.
        window: Steps that the temporal encoder sees.

    Raises:
        UserError: The model has no ViViT.
    """

    def __init__(self, model: nn.Module, window: int) -> None:
        backbone = getattr(model, "backbone", None)
        if not hasattr(backbone, "forward_step"):
            kind = type(model if backbone is None else backbone).__name__
            raise UserError(
                f"the config has a {kind}, which has no steps to stream; give a config with "
                "backbone=dict(type='mmvitaccel.ViViT')."
            )
        self.model = model
        self.steps: deque[Tensor] = deque(maxlen=window)
        self.number = 0

    @torch.no_grad()
    def push(self, step: Tensor) -> dict[str, Tensor] | None:
        """Encode the next step (1, 3, frames, H, W) uint8.

        Returns:
            Probabilities by name once the window is full.
        """
        batch = {"inputs": [step], "data_samples": [BaseDataElement()]}
        clip = self.model.data_preprocessor(batch, training=False)["inputs"][0]
        with streams([Frame("stream", self.number)]):
            self.steps.append(self.model.backbone.forward_step(clip))
        self.number += 1
        return self.scores() if len(self.steps) == self.steps.maxlen else None

    @torch.no_grad()
    def scores(self) -> dict[str, Tensor]:
        """Probabilities of the window; a short one is filled by repeating its last step."""
        missing = self.steps.maxlen - len(self.steps)
        window = torch.stack([*self.steps, *[self.steps[-1]] * missing], dim=1)  # (1, S, C)
        logits = self.model.cls_head(self.model.backbone.forward_temporal(window))
        named = logits if isinstance(logits, dict) else {"": logits}
        return {name: value[0].float().softmax(0) for name, value in named.items()}


class StreamRun:
    """Runs a stream through a recognizer with measurements per step.

    Counting slows a model down, so a second recognizer with the same weights and its own stream
    counts the multiply-adds.

    Args:
        model: In evaluation mode, on its device.
        window: Steps that the temporal encoder sees.
        count: Count multiply-adds.
        against_dense: Also time the model without its method.
    """

    def __init__(
        self, model: nn.Module, window: int, count: bool = True, against_dense: bool = True
    ) -> None:
        self.timed = StreamRecognizer(model, window)
        self.counted = StreamRecognizer(_twin(model), window) if count else None
        self.dense = None
        if against_dense:
            twin = _twin(model)
            self.dense = StreamRecognizer(twin, window) if take_off(twin, ()) else None

    def step(self, step: Tensor) -> StepResult:
        """Run the next step (1, 3, frames, H, W) uint8."""
        number = self.timed.number
        if number == 0:
            # one-time work of the process (threads, kernels) should not count for the first
            # step
            StreamRecognizer(_twin(self.timed.model), 1).push(step)
        scores, ms = _time(self.timed, step)
        dense_ms = None if self.dense is None else _time(self.dense, step)[1]
        macs = None
        if self.counted is not None:
            with MacsCounter() as counter:
                self.counted.push(step)
            macs = counter.report().total
        return StepResult(number, scores, ms, macs, dense_ms)


def _time(recognizer: StreamRecognizer, step: Tensor) -> tuple[dict[str, Tensor] | None, float]:
    device = next(recognizer.model.parameters()).device
    start = _now(device)
    scores = recognizer.push(step)
    return scores, 1e3 * (_now(device) - start)


def _now(device: torch.device) -> float:
    # Kernels are asynchronous
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _twin(model: nn.Module) -> nn.Module:
    """A copy with shared weights and methods, without the state of streams."""
    shared = {id(t): t for t in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, shared)
