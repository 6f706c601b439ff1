"""Training of an eventful model on clips, with a budget that is drawn for each step."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmvitaccel.adapters.attach import is_attached
from mmvitaccel.adapters.eventful.handle import EventfulHandle
from mmvitaccel.core.eventful.gates.policy import Always, TopK
from mmvitaccel.models.wrappers.eventful import attach_eventful
from mmvitaccel.registry import HOOKS


@HOOKS.register_module()
class RandomBudgetHook(Hook):
    """Train a transformer on clips as its gates run it, so that it learns from stale tokens too.

    Each step draws k, evenly on a logarithmic scale. The first frame of a clip is computed whole;
    in the later ones k tokens pass each gate, and gradients go through what passed. Frames come
    from :class:`~mmvitaccel.datasets.clip_sampler.ClipSampler`, with ``frames`` of the same number
    and a ``batch_size`` that is a multiple of it. A model that is eventful already keeps its own
    policy and attention for evaluation; any other is dense there.

    Args:
        k: Smallest and largest number of tokens.
        frames: Of a clip.
        target: Path of the module that is the transformer or holds it; by default it is looked for
            in the backbone, then in the neck.

    Raises:
        ValueError: ``k`` is no range, or ``frames`` is below 2, where nothing would be skipped.
    """

    # reason: before hooks that copy the model (EMA)
    priority = "VERY_HIGH"

    def __init__(self, k: Sequence[int], frames: int = 2, target: str | None = None) -> None:
        if len(k) != 2 or not 1 <= k[0] <= k[1]:
            raise ValueError(f"RandomBudgetHook: k={k!r} must be the smallest and the largest k.")
        if frames < 2:
            raise ValueError(f"RandomBudgetHook: frames={frames!r} must be at least 2.")
        self.k, self.frames, self.target = tuple(k), frames, target
        self.random = random.Random(0)
        self.handle: EventfulHandle | None = None
        self.is_own = False

    def before_train(self, runner: Runner) -> None:
        """Put Eventful on the model, where it is not there, and seed the draw."""
        self.random.seed(runner.seed or 0)  # all ranks draw the same, and take as long
        self.is_own = not any(is_attached(m, EventfulHandle.method) for m in runner.model.modules())
        if self.is_own:
            # reason: in evaluation this model is to be the dense one
            attach_eventful(runner.model, Always(), "tokenwise", self.target)
        self.handle = EventfulHandle(runner.model)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Draw the budget of a step."""
        low, high = (math.log(value) for value in self.k)
        k = round(math.exp(self.random.uniform(low, high)))
        self.handle.train_on_clips(self.frames, TopK(k))
        runner.message_hub.update_scalar("train/eventful_k", k)

    def after_train(self, runner: Runner) -> None:
        """Give the model back as it was."""
        self.handle.train_on_clips(None)
        if self.is_own:
            self.handle.remove()
        self.handle = None
