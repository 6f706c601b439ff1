"""Pictures of detections next to ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mmvitaccel.pictures.text import families, legible

LEAST_SCORE = 0.3
COLOURS = ("#ff4d6d", "#70e000", "#ff9f1c", "#4cc9f0", "#ffee32", "#c77dff")


def draw_comparison(
    batch: dict[str, Any],
    predictions: Sequence[Any],
    classes: Sequence[str],
    path: Path,
    columns: int = 6,
) -> None:
    """Draw images twice: ground truth above, detections below.

    Args:
        batch: ``inputs``, (3, H, W) BGR images in 0..255, and ``data_samples`` with
            ``gt_instances``.
        predictions: Data samples with ``pred_instances``, boxes in the pixels of the images.
        classes: Class names.
        path: The PNG file.
        columns: Images to draw, from the first.
    """
    count = min(columns, len(predictions))
    # Pyplot would use a display and the caller's figures
    figure = Figure(figsize=(2.6 * count, 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, count, squeeze=False)
    for column in range(count):
        image = batch["inputs"][column].numpy()[::-1].transpose(1, 2, 0)
        truth = batch["data_samples"][column].gt_instances
        found = predictions[column].pred_instances
        found = found[found.scores >= LEAST_SCORE]
        _draw_boxes(axes[0, column], image, _boxes(truth.bboxes), truth.labels, None, classes)
        _draw_boxes(
            axes[1, column], image, _boxes(found.bboxes), found.labels, found.scores, classes
        )
    axes[0, 0].set_ylabel("ground truth")
    axes[1, 0].set_ylabel(f"detections, score from {LEAST_SCORE}")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _boxes(bboxes: Any) -> np.ndarray:
    """(N, 4) corners, of a tensor or of mmdet's own box type."""
    return getattr(bboxes, "tensor", bboxes).detach().cpu().numpy()


def _draw_boxes(
    axes: Axes,
    image: np.ndarray,
    boxes: np.ndarray,
    labels: Any,
    scores: Any | None,
    classes: Sequence[str],
) -> None:
    axes.imshow(image, interpolation="bilinear")
    axes.set_xticks([])
    axes.set_yticks([])
    for number, (left, top, right, bottom) in enumerate(boxes.tolist()):
        label = int(labels[number])
        colour = COLOURS[label % len(COLOURS)]
        box = Rectangle((left, top), right - left, bottom - top, fill=False, ec=colour, lw=1.6)
        axes.add_patch(box)
        name = legible(classes[label], label)
        text = name if scores is None else f"{name} {float(scores[number]):.2f}"
        # Inside the picture even if the box starts at its upper edge
        place = (left, max(top, 0.06 * image.shape[0]))
        axes.annotate(
            text, place, color=colour, fontsize=7, weight="bold", va="bottom", family=families(text)
        )
