r"""Draw the README's picture: what an eventful ViTDet recomputes along a generated video.

    python docs/eventful_picture.py

draws a video of moving objects in front of a fixed camera and runs the small ViTDet of
configs/eventful/tiny on it, with 64 of 256 tokens per frame and with all of them. It writes three
frames with the recomputed tokens in red, over a plot of the backbone's multiply-adds and of the
features' difference to the dense model's. Weights are random; nothing is downloaded. ViTDet-B:

    python docs/eventful_picture.py --size 1024 --out large.jpg \
        --eventful configs/eventful/faster-rcnn_vitdet-b_vid-1024_top512.py \
        --dense configs/eventful/faster-rcnn_vitdet-b_vid-1024_dense.py
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import mmvitaccel  # noqa: F401  (compatibility patches before mmdet is imported)
from mmvitaccel.core.macs.counter import MacsCounter, count_macs
from mmvitaccel.datasets.synthetic import VideoSetSettings, make_video_set
from mmvitaccel.errors import one_sentence_errors
from mmvitaccel.pictures.gate_run import GateFrame, GateRun
from mmvitaccel.runner.attached_hooks import attach_hooks
from mmvitaccel.runner.config import load_config
from mmvitaccel.runner.session import build_model

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs" / "eventful" / "tiny"
DENSE = CONFIGS / "faster-rcnn_vitdet-tiny_vid-128_dense.py"
EVENTFUL = CONFIGS / "faster-rcnn_vitdet-tiny_vid-128_top64.py"
SHOWN = 3
RED = np.array([230, 40, 40], np.float32)


def generated_frames(size: int, count: int) -> list[np.ndarray]:
    """Frames of one generated video, as (size, size, 3) uint8 BGR."""
    settings = VideoSetSettings(
        num_train=1,
        num_val=1,
        num_frames=count,
        img_size=(size, size),
        backgrounds=("fixed",),
        objects=(4, 4),
        noise=2.0,
        seed=3,
    )
    with TemporaryDirectory() as folder:
        make_video_set(Path(folder) / "videos", settings)
        files = sorted(Path(folder).glob("videos/val/*/*.png"))
        return [cv2.imread(str(file)) for file in files]


def follow(config: Path, frames: Sequence[np.ndarray]) -> tuple[list[GateFrame], list[int]]:
    """Run a config's model on the frames, eventful and dense.

    Args:
        config: An eventful detector's.
        frames: (H, W, 3) uint8 BGR.

    Returns:
        What happened at each frame, and the multiply-adds of both runs together.
    """
    torch.manual_seed(0)
    cfg = load_config(str(config), {})
    model = build_model(cfg)
    attach_hooks(cfg, model)
    steps = GateRun(cfg, model).follow(iter(frames))
    followed, macs = [], []
    for _ in frames:
        counter = MacsCounter()
        with counter:
            followed.append(next(steps))
        macs.append(counter.report().total)
    return followed, macs


def dense_macs(config: Path, size: int) -> int:
    """Multiply-adds of a dense config's backbone for one frame of ``size`` x ``size`` pixels."""
    backbone = build_model(load_config(str(config), {})).backbone
    return count_macs(backbone, torch.zeros(1, 3, size, size)).total


def draw(frames: Sequence[GateFrame], macs: Sequence[int], dense: int, path: Path) -> None:
    """Write the picture.

    Args:
        frames: Of :func:`follow`.
        macs: Multiply-adds of the eventful backbone at each frame.
        dense: Those of the dense backbone.
        path: The file; its suffix chooses the format.
    """
    figure = Figure(figsize=(9.6, 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, SHOWN, height_ratios=(2, 1))
    shown = np.linspace(0, len(frames) - 1, SHOWN + 1).round().astype(int)[1:]
    for column, number in enumerate(shown):
        axes = figure.add_subplot(grid[0, column])
        axes.imshow(_marked(frames[number]))
        axes.set(xticks=[], yticks=[])
        axes.set_title(f"frame {number + 1}: recomputed tokens in red", fontsize=9)
    axes = figure.add_subplot(grid[1, :])
    numbers = range(1, len(frames) + 1)
    axes.axhline(dense / 1e9, color="0.4", ls="--", label="dense")
    axes.bar(numbers, [n / 1e9 for n in macs], color="tab:red", alpha=0.7, label="eventful")
    axes.set(xlabel="frame", ylabel="G multiply-adds", xlim=(0.3, len(frames) + 0.7))
    axes.legend(loc="upper right", fontsize=8)
    errors = axes.twinx()
    errors.plot(numbers, [100 * frame.error for frame in frames], color="tab:blue", marker=".")
    errors.set_ylim(0, None)
    errors.set_ylabel("difference to dense (%)", color="tab:blue")
    figure.savefig(path, dpi=100)


def _marked(frame: GateFrame) -> np.ndarray:
    """A frame in RGB, with the tokens in red that passed more than half of the gates."""
    height, width = frame.image.shape[:2]
    passed = np.kron(frame.share > 0.5, np.ones((frame.patch, frame.patch), bool))[:height, :width]
    image = frame.image[..., ::-1].astype(np.float32)
    return np.where(passed[..., None], 0.45 * image + 0.55 * RED, image).astype(np.uint8)


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Draw the video, run both models, write the picture and print what it shows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--eventful", type=Path, default=EVENTFUL, help="an eventful config")
    parser.add_argument("--dense", type=Path, default=DENSE, help="the dense config beside it")
    parser.add_argument("--size", type=int, default=128, help="pixels per side (default: 128)")
    parser.add_argument("--frames", type=int, default=24, help="frames (default: 24)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "eventful.jpg")
    args = parser.parse_args(argv)
    followed, both = follow(args.eventful, generated_frames(args.size, args.frames))
    dense = dense_macs(args.dense, args.size)
    macs = [total - dense for total in both]
    draw(followed, macs, dense, args.out)
    later = sum(macs[1:]) / len(macs[1:])
    error = 100 * sum(frame.error for frame in followed[1:]) / len(followed[1:])
    print(
        f"dense {dense / 1e9:.2f} G multiply-adds a frame, eventful {later / 1e9:.2f} G in the "
        f"mean of {len(macs) - 1} later frames ({dense / later:.2f}x fewer); features differ by "
        f"{error:.2f} % in the mean\nwrote {args.out}"
    )


if __name__ == "__main__":
    main()
