"""Several configs of one detector, timed in turn on the same frames of videos."""

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

_WARM_UP = 2  # frames of each video, of which the first is computed whole


def frame_times(
    ways: Mapping[str, Config], checkpoint: Path, videos: int
) -> dict[str, list[float]]:
    """Time detectors frame by frame, so that what disturbs one disturbs the others alike.

    Args:
        ways: Configs by name, each with its methods; the first one's test set is used.
        checkpoint: Weights of all.
        videos: How many of the set's videos.

    Returns:
        Seconds of each on every frame after the first two of a video.
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
