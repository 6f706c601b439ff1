"""Hook that attaches ToMe to a model."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from mmvitaccel.adapters.tome.handle import ToMeHandle
from mmvitaccel.arguments import text
from mmvitaccel.core.tome.schedule import Schedule, check_schedule
from mmvitaccel.models.wrappers.tome import attach_tome, check_tome_options
from mmvitaccel.registry import HOOKS


@HOOKS.register_module()
class ToMeHook(Hook):
    """Merge tokens in the model's transformer during a run, in training and testing.

    Use ``custom_hooks=[dict(type='mmvitaccel.ToMeHook', r=8)]`` in a config, or on the command
    line: ``--cfg-options default_hooks.tome.type=mmvitaccel.ToMeHook default_hooks.tome.r=8``.

    Args:
        r: Tokens merged per block, see :func:`mmvitaccel.apply_tome`.
        target: Path of the transformer or of a module that contains it; by default it is searched
            in the backbone, then in the neck.
        **options: Further arguments of :func:`mmvitaccel.apply_tome`.

    Raises:
        ValueError: ``r`` is a schedule of no model, the target no path, or another argument is
            unknown or has no meaning.
        TypeError: ``r`` is of another kind.
    """

    # Before hooks that copy the model (EMA), so that their copies merge too
    priority = "VERY_HIGH"

    def __init__(self, r: Schedule = 8, target: str | None = None, **options: Any) -> None:
        check_schedule(r)
        check_tome_options(options)
        self.r, self.options = r, options
        self.target = text("ToMe", "target", target, what="a module's path", or_none=True)
        self.handle: ToMeHandle | None = None
        self.path = ""

    def attach(self, model: nn.Module) -> ToMeHandle:
        """Attach ToMe to a model, also inside a distributed wrapper; the handle removes it.

        Raises:
            ValueError: There is no supported transformer, or ``r`` is invalid for it.
        """
        self.path, handle = attach_tome(model, self.r, self.target, **self.options)
        return handle

    def before_run(self, runner: Runner) -> None:
        """Attach, when training or testing begins."""
        self.after_run(runner)
        self.handle = self.attach(runner.model)
        name = type(self.handle.model).host_class.__name__
        runner.logger.info(f"ToMe: r={self.r} in {self.path or 'the model'} ({name}).")

    def after_run(self, runner: Runner) -> None:
        """Restore the model."""
        if self.handle is not None:
            self.handle.remove()
            self.handle = None
