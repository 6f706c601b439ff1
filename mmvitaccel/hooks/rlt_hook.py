"""Run-length tokenization in a model that a config builds without it."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from mmvitaccel.adapters.base import host_class
from mmvitaccel.adapters.rlt.apply import RLTHandle
from mmvitaccel.models.wrappers.rlt import attach_rlt
from mmvitaccel.registry import HOOKS


@HOOKS.register_module()
class RLTHook(Hook):
    """Leave out patches that repeat, for the length of a run, in training and testing.

    As ``custom_hooks=[dict(type='mmvitaccel.RLTHook')]`` in a config, or from the command line
    alone: ``--cfg-options default_hooks.rlt.type=mmvitaccel.RLTHook``.

    Args:
        threshold: See :func:`mmvitaccel.apply_rlt`.
        target: Path of the module that is the transformer or holds it; by default it is looked for
            in the backbone, then in the neck.
    """

    # reason: before hooks that copy the model (EMA), so that their copies leave out the same
    priority = "VERY_HIGH"

    def __init__(self, threshold: float = 0.1, target: str | None = None) -> None:
        self.threshold, self.target = threshold, target
        self.handle: RLTHandle | None = None

    def attach(self, model: nn.Module) -> RLTHandle:
        """Put RLT on a model, in a distributed wrapper or not; the handle takes it off.

        Raises:
            ValueError: No supported transformer is found.
        """
        return attach_rlt(model, self.threshold, self.target)[1]

    def before_run(self, runner: Runner) -> None:
        """Attach, when training or testing begins."""
        self.after_run(runner)
        self.handle = self.attach(runner.model)
        name = host_class(self.handle.model).__name__
        runner.logger.info(f"RLT: threshold={self.threshold} in {name}.")

    def after_run(self, runner: Runner) -> None:
        """Give the model back as it was."""
        if self.handle is not None:
            self.handle.remove()
            self.handle = None
