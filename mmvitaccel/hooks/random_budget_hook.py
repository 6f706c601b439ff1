"""Hook for training an eventful model on clips, with a random budget for each step."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmvitaccel.adapters.attach import is_attached
from mmvitaccel.adapters.eventful.handle import EventfulHandle
from mmvitaccel.arguments import refuse, text, whole_number, whole_numbers
from mmvitaccel.core.eventful.gates.policy import Always, TopK
from mmvitaccel.models.wrappers.eventful import attach_eventful
from mmvitaccel.registry import HOOKS


@HOOKS.register_module()
class RandomBudgetHook(Hook):
    """Train a transformer on clips with active gates, so that it learns from outdated tokens too.

    Each step draws k from a log-uniform distribution. The first frame of a clip is computed
    completely; in later frames k tokens pass each gate, and gradients flow through these tokens.
    Frames come from :class:`~mmvitaccel.datasets.clip_sampler.ClipSampler`, with the same
    ``frames`` and a ``batch_size`` that is a multiple of it. A model that is already eventful keeps
    its own policy and attention for evaluation; other models are evaluated dense.

    Args:
        k: Smallest and largest number of tokens.
        frames: Number of frames of a clip.
        target: Path of the transformer or of a module that contains it; by default it is searched
            in the backbone, then in the neck.

    Raises:
        ValueError: ``k`` is not a range, or ``frames`` is below 2.
    """

    # Before hooks that copy the model (EMA)
    priority = "VERY_HIGH"

    def __init__(self, k: Sequence[int], frames: int = 2, target: str | None = None) -> None:
        owner, why = "RandomBudgetHook", "give the smallest and the largest k"
        self.k = whole_numbers(owner, "k", k, least=1, count=2, why=why)
        if self.k[0] > self.k[1]:
            refuse(owner, "k", k, "two whole numbers in rising order", why=why)
        self.frames = whole_number(owner, "frames", frames, least=2, of="frames")
        self.target = text(owner, "target", target, what="a module's path", or_none=True)
        self.random = random.Random(0)
        self.handle: EventfulHandle | None = None
        self.is_own = False

    def before_train(self, runner: Runner) -> None:
        """Attach Eventful unless the model already has it, and seed the draws."""
        self.random.seed(runner.seed or 0)  # all ranks draw the same k, and take equally long
        self.is_own = not any(is_attached(m, EventfulHandle.method) for m in runner.model.modules())
        if self.is_own:
            # This model is evaluated dense
            attach_eventful(runner.model, Always(), "tokenwise", self.target)
        self.handle = EventfulHandle(runner.model)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Draw the budget of a step."""
        low, high = (math.log(value) for value in self.k)
        k = round(math.exp(self.random.uniform(low, high)))
        self.handle.train_on_clips(self.frames, TopK(k))
        runner.message_hub.update_scalar("train/eventful_k", k)

    def after_train(self, runner: Runner) -> None:
        """Restore the model."""
        self.handle.train_on_clips(None)
        if self.is_own:
            self.handle.remove()
        self.handle = None
