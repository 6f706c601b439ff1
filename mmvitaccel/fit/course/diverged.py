"""Warns of a training that goes on without a loss."""

from __future__ import annotations

import warnings
from math import isfinite
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

_IN_A_ROW = 3  # one alone may be a batch that mixed precision skips


class DivergedHook(Hook):
    """Warns once when several losses in a row are NaN or infinite.

    It reads the value that mmengine keeps for its log, so that no step waits for the device.
    """

    def __init__(self) -> None:
        self.count = 0

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Look at the loss of the iteration."""
        losses = runner.message_hub.log_scalars.get("train/loss")
        if losses is None or self.count >= _IN_A_ROW:
            return
        loss = losses.current()
        self.count = 0 if isfinite(loss) else self.count + 1
        if self.count == _IN_A_ROW:
            warnings.warn(
                f"the loss has been NaN or infinite since iteration {runner.iter + 2 - _IN_A_ROW}: "
                "the training has diverged and learns nothing any more; give a lower learning "
                "rate, a warm-up or optim_wrapper.clip_grad, and check the annotations.",
                stacklevel=2,
            )
