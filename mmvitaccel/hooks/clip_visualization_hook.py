"""Pictures of tested clips, with what was predicted."""

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

from mmvitaccel.pictures.text import legible, put_text
from mmvitaccel.registry import HOOKS

_SHOWN_FRAMES = 8
_CAPTION_HEIGHT = 18


@HOOKS.register_module()
class ClipVisualizationHook(Hook):
    """Draw a tested clip as a strip of up to eight frames under its predicted and true class.

    mmaction2's own ``VisualizationHook`` takes clips without views and hands its visualizer an
    argument that this does not know.

    Args:
        interval: Every how many samples one is drawn.
        show: Whether strips are shown in a window.
        wait_time: Seconds for which a window stays; 0 for until a key is pressed.
        out_dir: Folder for PNG files, below ``work_dir/<time stamp>``; None to write none.
    """

    def __init__(
        self,
        interval: int = 1,
        show: bool = False,
        wait_time: float = 2.0,
        out_dir: str | None = None,
    ) -> None:
        if interval < 1:
            raise ValueError(f"ClipVisualizationHook: interval is {interval}; set 1 or more.")
        self.interval = interval
        self.show = show
        self.wait_time = wait_time
        self.out_dir = out_dir
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
        """Draw the batch's samples whose turn it is."""
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
        clip: What a pipeline packed: (V, C, T, H, W) of which the first view is drawn, or frames
            (T, C, H, W); RGB, 0 to 255.
        caption: The text.

    Returns:
        (18 + H, T * W, 3) uint8, BGR, of at most eight frames.

    Raises:
        ValueError: It has no frames, as features computed before.
    """
    if clip.dim() not in (4, 5):
        raise ValueError(
            f"ClipVisualizationHook: a sample has shape {tuple(clip.shape)}, which is no clip; "
            "test with a config whose data are videos."
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
    """Predicted classes and their score, and the true ones where they are known."""
    scores = sample.pred_score
    # A verb and a noun have no common list of names.
    named, classes = (scores, None) if isinstance(scores, Mapping) else ({"": scores}, classes)
    best = [score.max(dim=-1) for score in named.values()]
    labels = ", ".join(_name(index, classes) for _, index in best)
    words = f"{labels} {math.prod(score.item() for score, _ in best):.2f}"
    if "gt_label" in sample:
        words += f" (true: {', '.join(_name(label, classes) for label in sample.gt_label)})"
    return words


def _name(index: torch.Tensor, classes: Sequence[str] | None) -> str:
    return legible(classes[int(index)], int(index)) if classes else str(int(index))
