"""Hook that draws tested clips with their predictions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmvitaccel.arguments import flag, number, path, whole_number
from mmvitaccel.pictures.text import legible, put_text
from mmvitaccel.registry import HOOKS

_SHOWN_FRAMES = 8
_CAPTION_HEIGHT = 18


@HOOKS.register_module()
class ClipVisualizationHook(Hook):
    """Draw a tested clip as a strip of up to eight frames under its predicted and true class.

    mmaction2's own ``VisualizationHook`` only supports clips without views and passes an argument
    that its visualizer does not accept.

    Args:
        interval: Number of samples from one drawn sample to the next.
        show: Whether strips are shown in a window.
        wait_time: Seconds for which a window is shown; 0 to wait for a key.
        out_dir: Folder for PNG files, below ``work_dir/<time stamp>``; None to write none.
    """

    def __init__(
        self,
        interval: int = 1,
        show: bool = False,
        wait_time: float = 2.0,
        out_dir: str | None = None,
    ) -> None:
        owner = "ClipVisualizationHook"
        self.interval = whole_number(owner, "interval", interval, least=1)
        self.show = flag(owner, "show", show)
        self.wait_time = number(owner, "wait_time", wait_time, least=0)
        self.out_dir = path(owner, "out_dir", out_dir, or_none=True)
        self._drawn = 0

    def before_test(self, runner: Runner) -> None:
        """Restart the count of samples; each process has its own."""
        self._drawn = 0

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict[str, Any] | None = None,
        outputs: Sequence[Any] | None = None,
    ) -> None:
        """Draw the samples of the batch that are due."""
        classes = (runner.visualizer.dataset_meta or {}).get("classes")
        for clip, sample in zip(data_batch["inputs"], outputs):
            if self._drawn % self.interval == 0:
                strip = draw_strip(clip, _caption(sample, classes))
                self._give_out(runner, strip, f"{runner.rank}_{self._drawn:06d}")
            self._drawn += 1

    def _give_out(self, runner: Runner, strip: np.ndarray, name: str) -> None:
        if self.out_dir is not None:
            folder = Path(runner.log_dir) / self.out_dir
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f"{name}.png"), strip)
        if self.show:
            runner.visualizer.show(strip[..., ::-1], win_name=name, wait_time=self.wait_time)


def draw_strip(clip: torch.Tensor, caption: str) -> np.ndarray:
    """Frames side by side under a line of text.

    Args:
        clip: Packed inputs of a pipeline: (V, C, T, H, W), of which the first view is drawn, or
            frames (T, C, H, W); RGB, 0 to 255.
        caption: The text.

    Returns:
        (18 + H, T * W, 3) uint8, BGR, of at most eight frames.

    Raises:
        ValueError: The input has no frames, such as precomputed features.
    """
    if clip.dim() not in (4, 5):
        raise ValueError(
            f"ClipVisualizationHook: a sample has shape {tuple(clip.shape)}, which is not a "
            f"clip; use a config with video data."
        )
    # (V, C, T, H, W) -> (T, C, H, W) of the first view
    frames = clip[0].transpose(0, 1) if clip.dim() == 5 else clip
    count = min(len(frames), _SHOWN_FRAMES)
    chosen = frames[torch.linspace(0, len(frames) - 1, count).round().long()]
    # (T, C, H, W) -> (H, T, W, C) -> (H, T * W, C)
    strip = chosen.permute(2, 0, 3, 1).flatten(1, 2).cpu().numpy().astype(np.uint8)[..., ::-1]
    band = np.zeros((_CAPTION_HEIGHT, *strip.shape[1:]), np.uint8)
    return np.concatenate([put_text(band, caption, (3, 2), 12, (255, 255, 255)), strip])


def _caption(sample: Any, classes: Sequence[str] | None) -> str:
    """Predicted classes with their score, and the true classes if known."""
    scores = sample.pred_score
    # verbs and nouns have no common list of names
    named, classes = (scores, None) if isinstance(scores, Mapping) else ({"": scores}, classes)
    best = [score.max(dim=-1) for score in named.values()]
    labels = ", ".join(_name(index, classes) for _, index in best)
    words = f"{labels} {math.prod(score.item() for score, _ in best):.2f}"
    if "gt_label" in sample:
        words += f" (true: {', '.join(_name(label, classes) for label in sample.gt_label)})"
    return words


def _name(index: torch.Tensor, classes: Sequence[str] | None) -> str:
    return legible(classes[int(index)], int(index)) if classes else str(int(index))
