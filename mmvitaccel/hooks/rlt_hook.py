"""Hook that attaches run-length tokenization to a model."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from mmvitaccel.adapters.base import host_class
from mmvitaccel.adapters.rlt.apply import RLTHandle
from mmvitaccel.arguments import number, text
from mmvitaccel.models.wrappers.rlt import attach_rlt
from mmvitaccel.registry import HOOKS


@HOOKS.register_module()
class RLTHook(Hook):
    """Drop repeated patches during a run, in training and testing.

    Use ``custom_hooks=[dict(type='mmvitaccel.RLTHook')]`` in a config, or on the command line:
    ``--cfg-options default_hooks.rlt.type=mmvitaccel.RLTHook``.

    Args:
        threshold: See :func:`mmvitaccel.apply_rlt`.
        target: Path of the transformer or of a module that contains it; by default it is searched
            in the backbone, then in the neck.

    Raises:
        ValueError: The threshold is negative or NaN, or the target no path.
    """

    # Before hooks that copy the model (EMA), so that their copies have RLT too
    priority = "VERY_HIGH"

    def __init__(self, threshold: float = 0.1, target: str | None = None) -> None:
        self.threshold = number("RLT", "threshold", threshold, least=0, or_infinite=True)
        self.target = text("RLT", "target", target, what="a module's path", or_none=True)
        self.handle: RLTHandle | None = None

    def attach(self, model: nn.Module) -> RLTHandle:
        """Attach RLT to a model, also inside a distributed wrapper; the handle removes it.

        Raises:
            ValueError: There is no supported transformer.
        """
        return attach_rlt(model, self.threshold, self.target)[1]

    def before_run(self, runner: Runner) -> None:
        """Attach, when training or testing begins."""
        self.after_run(runner)
        self.handle = self.attach(runner.model)
        name = host_class(self.handle.model).__name__
        runner.logger.info(f"RLT: threshold={self.threshold} in {name}.")

    def after_run(self, runner: Runner) -> None:
        """Restore the model."""
        if self.handle is not None:
            self.handle.remove()
            self.handle = None
