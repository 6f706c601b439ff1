"""Measures each frame of an evaluation: multiply-adds, milliseconds, tokens let through."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmvitaccel.arguments import flag, text
from mmvitaccel.hooks.measured_model import MeasuredModel
from mmvitaccel.registry import HOOKS


@HOOKS.register_module()
class CostHook(Hook):
    """Add the cost of its frame to each result of a test.

    :class:`~mmvitaccel.metrics.macs_metric.MacsMetric` reads it from the results' ``cost``, a dict
    with the frame's share of its batch or clip. Counting slows a model down, so no frame is both
    counted and timed: of every two later frames of a video, a random one is counted and the other
    timed. The first frame of a video runs twice, each time with a reset stream. The dense cost is
    counted once for each input size, on a copy of the model that shares the weights and has no
    method.

    In addition to the whole model, the backbone is counted and timed, and the neck, the heads of a
    detector, and the layers of each of these parts are counted.

    Args:
        backbone: Module path of the backbone.
        timed: Whether frames are timed; otherwise all frames are counted.

    Raises:
        ValueError: An argument has the wrong type.
    """

    # After EMAHook, which swaps in the weights for the test
    priority = "LOW"

    def __init__(self, backbone: str = "backbone", timed: bool = True) -> None:
        self.backbone = text("CostHook", "backbone", backbone, what="a module's path")
        self.timed = flag("CostHook", "timed", timed)
        self._measured: MeasuredModel | None = None

    def before_test_epoch(self, runner: Runner) -> None:
        """Wrap the model's ``test_step``."""
        self._end()
        model = runner.model
        while is_model_wrapper(model):
            model = model.module
        self._measured = MeasuredModel(model, self.backbone, self.timed)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, Any] | None = None) -> None:
        """Restore the model."""
        self._end()

    def _end(self) -> None:
        if self._measured is not None:
            self._measured.restore()
            self._measured = None
