"""Timing of several configs of a detector, which take turns on each frame of videos."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS
from torch import nn

from mmvitaccel.runner.checkpoint import check_checkpoint
from mmvitaccel.runner.session import build_model

_WARM_UP = 2  # untimed frames of each video; the first one is computed completely


def frame_times(
    ways: Mapping[str, Config], checkpoint: Path, videos: int
) -> dict[str, list[float]]:
    """Time detectors in turn on each frame, so that disturbances affect all of them alike.

    Args:
        ways: Configs by name; the test set of the first one is used.
        checkpoint: Weights of all detectors.
        videos: Number of videos.

    Returns:
        For each detector, seconds per frame, without the first two frames of each video.
    """
    models = {name: _load(cfg, checkpoint) for name, cfg in ways.items()}
    dataset = DATASETS.build(next(iter(ways.values())).test_dataloader.dataset)
    found = [dataset.get_data_info(index) for index in range(len(dataset))]
    chosen = sorted({info["video_id"] for info in found})[:videos]
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for index, info in enumerate(found):
        if info["video_id"] not in chosen:
            continue
        batch = pseudo_collate([dataset[index]])
        order = list(models) if index % 2 == 0 else list(reversed(models))
        for name in order:
            took = _timed(models[name], batch)
            if info["frame_id"] >= _WARM_UP:
                seconds[name].append(took)
    return seconds


def _load(cfg: Config, checkpoint: Path) -> nn.Module:
    model = build_model(cfg)
    check_checkpoint(model, str(checkpoint))
    return model.eval()


@torch.no_grad()
def _timed(model: nn.Module, batch: dict[str, Any]) -> float:
    start = time.perf_counter()
    model.test_step(batch)
    return time.perf_counter() - start
