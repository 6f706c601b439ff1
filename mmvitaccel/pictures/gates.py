"""Pictures of gates: frames with passing tokens in red, a strip, a plot."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import cv2
import matplotlib
import numpy as np

from mmvitaccel.pictures.gate_run import GateFrame
from mmvitaccel.pictures.text import put_text
from mmvitaccel.video_reader import VideoWriter

_RED = np.array([40, 40, 230], np.float32)
_STRIP, _WIDTH = 8, 480
_KEPT = 64


def draw_gates(frame: GateFrame) -> np.ndarray:
    """Draw a frame, uint8 BGR, with more red for tokens that passed more gates.

    Small frames are enlarged by a whole number, to be at least 480 pixels wide.
    """
    height, width = frame.image.shape[:2]
    factor = -(-_WIDTH // width)
    side = frame.patch * factor
    image = np.kron(frame.image, np.ones((factor, factor, 1), np.uint8))
    share = np.kron(frame.share, np.ones((side, side)))[: height * factor, : width * factor]
    alpha = 0.7 * share[..., None]
    # OpenCV writes into rows of pixels only, and images come as (channels, height, width).
    drawn = np.ascontiguousarray(image * (1 - alpha) + _RED * alpha, dtype=np.uint8)
    text = f"error {100 * frame.error:.2f} %   tokens {', '.join(f'{n:.0f}' for n in frame.passed)}"
    return put_text(drawn, text, (6, 4), 15, (255, 255, 255), outline=(0, 0, 0))


class GatePictures:
    """Collects the frames of a run and writes pictures into a folder.

    Args:
        folder: Output folder, created if necessary. ``gates.mp4`` is written frame by frame.
        fps: Frame rate of the video.
    """

    def __init__(self, folder: Path, fps: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.rows: list[dict] = []
        self._strip: list[np.ndarray] = []
        self._every = 1  # of the frames, one is kept for the strip
        self._writer = VideoWriter(folder / "gates.mp4", fps)

    def add(self, frame: GateFrame) -> None:
        """Take the next frame."""
        drawn = draw_gates(frame)
        self._writer.add(np.ascontiguousarray(drawn[..., ::-1]))
        if len(self.rows) % self._every == 0:
            height = round(_WIDTH * drawn.shape[0] / drawn.shape[1])
            self._strip.append(cv2.resize(drawn, (_WIDTH, height), interpolation=cv2.INTER_AREA))
        if len(self._strip) == _KEPT:  # the number of frames is unknown
            self._strip = self._strip[::2]
            self._every *= 2
        row = {k: v for k, v in asdict(frame).items() if k not in ("image", "patch", "share")}
        self.rows.append({"frame": len(self.rows), **row})

    def close(self) -> list[Path]:
        """Write the strip, the plot and the figures; returns the files."""
        self._writer.close()
        count = min(_STRIP, len(self._strip))
        places = np.linspace(0, len(self._strip) - 1, count).round().astype(int)
        shown = [self._strip[place] for place in places]
        half = -(-count // 2)
        shown += [np.full_like(shown[0], 255)] * (2 * half - count)
        strip = np.concatenate(
            [np.concatenate(shown[i * half : (i + 1) * half], 1) for i in (0, 1)]
        )
        cv2.imwrite(str(self.folder / "strip.png"), strip)
        (self.folder / "frames.json").write_text(json.dumps(self.rows, indent=1))
        _plot(self.rows, self.folder / "error.png")
        return [self.folder / n for n in ("gates.mp4", "strip.png", "error.png", "frames.json")]


def _plot(rows: Sequence[dict], path: Path) -> None:
    """Error over frames."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    axes.plot([row["frame"] for row in rows], [100 * row["error"] for row in rows])
    axes.set(xlabel="frame", ylabel="error of the features against dense (%)", ylim=(0, None))
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
