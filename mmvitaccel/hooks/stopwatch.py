"""Times a model's step, and within it a module."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import nn


class Stopwatch:
    """Times a model's step, and within it a module."""

    def __init__(self, module: nn.Module) -> None:
        self.start = self.elapsed = 0.0
        self.device = next(module.parameters()).device
        self.hooks = [
            module.register_forward_pre_hook(self._enter),
            module.register_forward_hook(self._leave),
        ]

    def remove(self) -> None:
        """Remove the hooks from the module."""
        for hook in self.hooks:
            hook.remove()

    def time(self, run: Any, data: Any) -> tuple[Any, dict[str, float]]:
        """Run, and return the results and the milliseconds of the model and of the module."""
        self.elapsed = 0.0
        start = self._now()
        results = run(data)
        whole = self._now() - start
        return results, {"ms": 1e3 * whole, "backbone_ms": 1e3 * self.elapsed}

    def _now(self) -> float:
        # Kernels run on after the call that started them
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def _enter(self, *_: Any) -> None:
        self.start = self._now()

    def _leave(self, *_: Any) -> None:
        self.elapsed += self._now() - self.start
