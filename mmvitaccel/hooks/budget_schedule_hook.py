"""Hook that changes the budget from frame to frame by a schedule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Union

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.utils import get_object_from_string
from torch import nn

from mmvitaccel.adapters.eventful.detector import handles_in
from mmvitaccel.adapters.eventful.handle import EventfulHandle, StreamHandle
from mmvitaccel.adapters.steering import claim, release
from mmvitaccel.arguments import numbers, text
from mmvitaccel.registry import HOOKS

Schedule = Union[Sequence[float], Callable[[int], float], str]


@HOOKS.register_module()
class BudgetScheduleHook(Hook):
    """Set the budget of an eventful model's policy for each frame, and log it.

    Adaptive inference as in Figure 1 of the paper: the cost of one set of weights follows a
    schedule. In a detector with several eventful parts, the hook sets the policies of backbone and
    neck that have the attribute; the heads follow the neck.

    Args:
        schedule: A list with the budget of each frame of a video, whose last entry is used for all
            later frames; or a function of the frame's index, or its path
            ``package.module.function``. The index is the frame id of the batch's first image, or
            the number of the batch if there is no frame id.
        attribute: Attribute of the policy to set: ``k`` of TopK, ``fraction`` of TopFraction,
            ``threshold`` of Threshold.

    Raises:
        ValueError: The schedule is empty, or the path does not exist.
        TypeError: The schedule has another type.
        RuntimeError: A :class:`~mmvitaccel.Budget` controls the model too.
    """

    priority = "NORMAL"

    def __init__(self, schedule: Schedule, attribute: str = "k") -> None:
        if isinstance(schedule, str):
            found = get_object_from_string(schedule)
            if found is None:
                raise ValueError(
                    f"BudgetScheduleHook: schedule={schedule!r} does not exist; give the path of "
                    f"a function, 'package.module.function', or a list."
                )
            schedule = found
        if not callable(schedule) and not isinstance(schedule, (list, tuple)):
            raise TypeError(
                f"BudgetScheduleHook: schedule={schedule!r} is neither a list nor a function of "
                "the frame's index."
            )
        if not callable(schedule) and not schedule:
            raise ValueError("BudgetScheduleHook: schedule=[] is empty; give at least one budget.")
        if not callable(schedule):
            numbers("BudgetScheduleHook", "schedule", schedule, least=0, or_infinite=True)
        self.schedule = schedule
        self.attribute = text(
            "BudgetScheduleHook", "attribute", attribute, what="an attribute of the policy"
        )

    def budget(self, frame: int) -> float:
        """The budget of the frame with an index."""
        if callable(self.schedule):
            return self.schedule(frame)
        return self.schedule[min(frame, len(self.schedule) - 1)]

    def before_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Set the budget of the next batch."""
        self._set(runner, "val", batch_idx, data_batch)

    def before_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Set the budget of the next batch."""
        self._set(runner, "test", batch_idx, data_batch)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Leave the model to others."""
        self._release(runner)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Leave the model to others."""
        self._release(runner)

    def _release(self, runner: Runner) -> None:
        for handle in _steers(runner.model):
            release(handle.model, self)

    def _set(self, runner: Runner, phase: str, batch_idx: int, data_batch: Any) -> None:
        steers = _steers(runner.model)
        policies = [handle.policy for handle in steers]
        steered = [policy for policy in policies if hasattr(policy, self.attribute)]
        for handle in steers:
            claim(handle.model, self)
        if not steered:
            raise ValueError(
                f"BudgetScheduleHook: the policy {' or '.join(map(repr, policies))} has no "
                f"{self.attribute!r} to set; name one of its attributes."
            )
        budget = self.budget(_frame_index(batch_idx, data_batch))
        for policy in steered:
            setattr(policy, self.attribute, budget)
        runner.message_hub.update_scalar(f"{phase}/eventful_{self.attribute}", float(budget))


def _steers(model: nn.Module) -> list[StreamHandle]:
    """The policies of backbone and neck, or of other eventful parts if neither is eventful."""
    handles = handles_in(model) or {"backbone": EventfulHandle(model)}
    first = [name for name in ("backbone", "neck") if name in handles] or list(handles)
    return [handles[name] for name in first]


def _frame_index(batch_idx: int, data_batch: Any) -> int:
    """Frame id of the first image, or the number of the batch."""
    sample = data_batch.get("data_samples") if isinstance(data_batch, dict) else None
    while isinstance(sample, (list, tuple)):  # test-time augmentation has a list for each view
        sample = sample[0] if sample else None
    sample = getattr(sample, "video_data_samples", [sample])[0]  # clip of a tracker
    frame_id = None if sample is None else sample.metainfo.get("frame_id")
    return batch_idx if frame_id is None else int(frame_id)
