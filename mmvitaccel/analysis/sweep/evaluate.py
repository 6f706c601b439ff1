"""Tests a checkpoint like ``tools/test.py``, and measures the cost of its frames."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook

from mmvitaccel.models.weights.wrapped import USUAL, Choice
from mmvitaccel.registry import type_name
from mmvitaccel.runner.session import run

_COST_HOOK, _COST_METRIC = "mmvitaccel.CostHook", "mmvitaccel.MacsMetric"


def evaluate(
    cfg: Config,
    checkpoint: str | Path,
    work_dir: Path,
    choice: Choice = USUAL,
    skip_broken: bool = False,
    timed: bool = False,
    hooks: Sequence[Hook] = (),
) -> dict[str, Any]:
    """Test a checkpoint and return the metrics of the config's evaluators.

    Args:
        cfg: The checked config; it is not changed.
        checkpoint: Its weights.
        work_dir: Folder for the log.
        choice: Selects the weights in the checkpoint.
        skip_broken: Whether unreadable files are skipped and counted.
        timed: Whether a ``CostHook`` of the config times frames; otherwise it counts all.
        hooks: Additional hooks.
    """
    cfg = copy.deepcopy(cfg)
    cfg.work_dir, cfg.load_from, cfg.resume = str(work_dir), str(checkpoint), False
    cfg.log_level = "WARNING"
    for hook in _cost_hooks(cfg):
        hook["timed"] = timed
    return run(cfg, "test", choice, skip_broken, hooks)


def with_costs(cfg: Config) -> Config:
    """A copy of a config with :class:`mmvitaccel.CostHook` and its metric, if it lacks them."""
    cfg = copy.deepcopy(cfg)
    if not any(_cost_hooks(cfg)):
        cfg.custom_hooks = [*(cfg.get("custom_hooks") or []), dict(type=_COST_HOOK)]
    given = cfg.get("test_evaluator")
    metrics = list(given) if isinstance(given, (list, tuple)) else [given] if given else []
    if not any(type_name(metric) == "MacsMetric" for metric in metrics):
        metrics.append(dict(type=_COST_METRIC))
    cfg.test_evaluator = metrics
    return cfg


def _cost_hooks(cfg: Config) -> Iterator[dict[str, Any]]:
    """The config's hooks that measure frames."""
    hooks = [*(cfg.get("custom_hooks") or []), *(cfg.get("default_hooks") or {}).values()]
    for hook in hooks:
        if isinstance(hook, dict) and type_name(hook) == "CostHook":
            yield hook
