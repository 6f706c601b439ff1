"""Hook that holds a budget during a test: milliseconds, frames per second, multiply-adds."""

from __future__ import annotations

from collections.abc import Sequence
from types import MethodType
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from mmvitaccel.adapters.attach import is_attached, link
from mmvitaccel.adapters.eventful.handle import EventfulHandle
from mmvitaccel.adapters.tome.handle import ToMeHandle
from mmvitaccel.adapters.tome.run import METHOD as TOME
from mmvitaccel.budget.budget import Budget, Handle
from mmvitaccel.budget.knobs import checked_bounds
from mmvitaccel.budget.quality import QualityFloor
from mmvitaccel.budget.target import Target
from mmvitaccel.registry import HOOKS


@HOOKS.register_module()
class BudgetHook(Hook):
    """Hold a budget of a frame in validation and testing, of any OpenMMLab model.

    Runs the model's step inside a :class:`mmvitaccel.Budget`: preprocessing counts, data loading
    and the evaluator do not. The cost of a batch is divided by its images, that of a tracker's clip
    by its frames; a recognizer's clip counts as one frame. Eventful, ToMe or both must be attached
    by the config or by their hooks, which run first. Usage: ``custom_hooks=[...,
    dict(type='mmvitaccel.BudgetHook', milliseconds=200, k=(64, 1024))]``.

    Args:
        k: Lowest and highest k, for a model with Eventful.
        r: Lowest and highest r, for a model with ToMe.
        left_out: Upper limit of ``left_out``, see :class:`mmvitaccel.Budget`.
        **target: One of ``milliseconds``, ``fps``, ``macs`` and ``share``.

    Attributes:
        budget: The budget of the current or last run; None before the first.

    Raises:
        ValueError: Not exactly one target, neither ``k`` nor ``r``, or values without a meaning.
    """

    # After the hooks that attach methods, before CostHook, which measures under the budget
    priority = "NORMAL"

    def __init__(
        self,
        k: Sequence[int] | None = None,
        r: Sequence[int] | None = None,
        left_out: float | None = None,
        **target: float,
    ) -> None:
        if k is None and r is None:
            raise ValueError(
                "BudgetHook: neither k nor r is given; give the bounds of the one to control, "
                "such as "
                "k=(64, 1024) for Eventful or r=(0, 16) for ToMe."
            )
        self.k = k if k is None else checked_bounds("k", k, 1)
        self.r = r if r is None else checked_bounds("r", r, 0)
        self.left_out = QualityFloor(left_out).limit
        self.target = Target.of(**target)
        self.budget: Budget | None = None
        self._step: _Step | None = None

    def before_val_epoch(self, runner: Runner) -> None:
        """Create the budget."""
        self._begin(runner, "val_step")

    def before_test_epoch(self, runner: Runner) -> None:
        """Create the budget."""
        self._begin(runner, "test_step")

    def after_val_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Log the cost of the frame."""
        self._log(runner, "val")

    def after_test_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Log the cost of the frame."""
        self._log(runner, "test")

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Remove the budget and log its report."""
        self._end(runner)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Remove the budget and log its report."""
        self._end(runner)

    def _begin(self, runner: Runner, step: str) -> None:
        if self._step is not None:  # left by a run that ended in an error
            self._step.restore()
            self.budget.remove()
        model = runner.model
        while is_model_wrapper(model):
            model = model.module
        self.budget = Budget(
            self._handles(model),
            **{self.target.kind: self.target.value},
            k=self.k,
            r=self.r,
            left_out=self.left_out,
        )
        self._step = _Step(model, step, self.budget)

    def _handles(self, model: nn.Module) -> list[Handle]:
        handles: list[Handle] = [] if self.k is None else [EventfulHandle(model)]
        if self.r is not None:
            roots = [m for m in model.modules() if is_attached(m, TOME) and link(m, TOME).members]
            if not roots:
                raise ValueError(
                    f"BudgetHook: r={self.r!r} but this {type(model).__name__} has no ToMe; add "
                    f"it in the config or with mmvitaccel.ToMeHook."
                )
            handles.append(ToMeHandle(roots[0]))
        return handles

    def _log(self, runner: Runner, phase: str) -> None:
        if not self.budget.frames:
            return
        record = self.budget.frames[-1]
        for name in ("k", "r", "milliseconds", "macs"):
            value = getattr(record, name)
            if value is not None:
                runner.message_hub.update_scalar(f"{phase}/budget_{name}", float(value))

    def _end(self, runner: Runner) -> None:
        runner.logger.info(f"Budget: {self.budget.report()}.")
        self._step.restore()
        self.budget.remove()
        self._step = None


class _Step:
    """Wraps a model's step in a frame of a budget.

    Args:
        model: Changed on the instance until :meth:`restore`.
        name: ``test_step`` or ``val_step``.
        budget: The budget.
    """

    def __init__(self, model: nn.Module, name: str, budget: Budget) -> None:
        self.model, self.name, self.run = model, name, getattr(model, name)
        self.budget: Budget | None = budget
        setattr(model, name, self)

    def __call__(self, data: Any) -> Any:
        """Run a batch."""
        if self.budget is None:
            return self.run(data)
        with self.budget.frame() as record:
            results = self.run(data)
            record.images = max(_count_images(results), 1)
        return results

    def restore(self) -> None:
        """Restore the model's step, or have no effect if another wrapper is around it."""
        self.budget = None
        if self.model.__dict__.get(self.name) is self:
            delattr(self.model, self.name)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        # Copies of the model (CostHook's dense one, EMA's) are not controlled
        model = memo[id(self.model)]
        return MethodType(getattr(type(model), self.name), model)


def _count_images(results: Sequence[Any]) -> int:
    """Number of images of a batch, or of frames of a tracker's clip."""
    return sum(len(getattr(sample, "video_data_samples", [sample])) for sample in results)
