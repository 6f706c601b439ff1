"""Hook that attaches Eventful to a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from mmvitaccel.adapters.base import host_class
from mmvitaccel.adapters.eventful.detector import EventfulDetectorHandle
from mmvitaccel.adapters.eventful.handle import EventfulHandle, checked_policy
from mmvitaccel.arguments import sequence, text
from mmvitaccel.core.eventful.gates.policy import Policy
from mmvitaccel.core.eventful.modes.mode import AttentionMode
from mmvitaccel.models.wrappers.eventful import (
    attach_eventful,
    check_eventful_options,
    refuse_both,
)
from mmvitaccel.registry import HOOKS


@HOOKS.register_module()
class EventfulHook(Hook):
    """Recompute only what changed since the previous frame, in validation and testing.

    Use ``custom_hooks=[dict(type='mmvitaccel.EventfulHook', policy=dict(type='TopK', k=512))]`` in
    a config, or on the command line: ``--cfg-options
    default_hooks.eventful.type=mmvitaccel.EventfulHook default_hooks.eventful.policy.type=TopK
    default_hooks.eventful.policy.k=512``.

    Args:
        policy: Selects the tokens that pass the gates, see
            :func:`~mmvitaccel.models.wrappers.eventful.Eventful`.
        attention: ``exact``, ``tokenwise`` or ``delta``.
        target: Path of the transformer or of a module that contains it; by default it is searched
            in the backbone, then in the neck.
        parts: ``all``, or the names of parts of a detector to make eventful, see
            :func:`mmvitaccel.apply_eventful`; ``policy`` may then have a policy for each part. None
            for the transformer only.
        **options: Further arguments of :func:`mmvitaccel.apply_eventful`.

    Raises:
        ValueError: Both ``target`` and ``parts`` are given, or an argument is unknown or has no
            meaning.
        TypeError: The policy is neither a config nor an object with a method ``select``, or refresh
            or motion lacks a method.
    """

    # Before hooks that copy the model (EMA), so that their copies are eventful too
    priority = "VERY_HIGH"

    def __init__(
        self,
        policy: dict | Policy,
        attention: str | dict | AttentionMode = "exact",
        target: str | None = None,
        parts: str | Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        if not isinstance(policy, Mapping):
            checked_policy(policy, on_tokens=True)
        text("Eventful", "target", target, what="a module's path", or_none=True)
        if parts is not None and not isinstance(parts, str):
            names = sequence("Eventful", "parts", parts, why="give 'all' or names of parts")
            parts = [text("Eventful", "parts", name, what="names of parts") for name in names]
        refuse_both(target, parts)
        check_eventful_options(attention, parts, options)
        self.policy, self.attention = policy, attention
        self.target, self.parts, self.options = target, parts, options
        self.handle: EventfulHandle | EventfulDetectorHandle | None = None
        self.path = ""

    def attach(self, model: nn.Module) -> EventfulHandle | EventfulDetectorHandle:
        """Attach Eventful to a model, also inside a distributed wrapper; the handle removes it.

        Raises:
            ValueError: There is no supported transformer, a part is not supported, or an argument
                is invalid.
        """
        self.path, handle = attach_eventful(
            model, self.policy, self.attention, self.target, self.parts, **self.options
        )
        return handle

    def before_run(self, runner: Runner) -> None:
        """Attach, when training or testing begins."""
        self.after_run(runner)
        self.handle = self.attach(runner.model)
        name = host_class(self.handle.model).__name__
        if isinstance(self.handle, EventfulDetectorHandle):
            parts = [f"{part} with {own.policy}" for part, own in self.handle.parts.items()]
            whole = [f"{part}, {why}" for part, why in self.handle.left_out.items()]
            runner.logger.info(
                f"Eventful: parts of {name} are {'; '.join(parts)}. Dense in every frame: "
                f"{'; '.join(whole) or 'none'}."
            )
            return
        runner.logger.info(
            f"Eventful: {self.handle.policy} with {self.handle.options.attention} in "
            f"{self.path or 'the model'} ({name})."
        )

    def after_run(self, runner: Runner) -> None:
        """Restore the model."""
        if self.handle is not None:
            self.handle.remove()
            self.handle = None
