"""The demonstration on videos: train a detector, then compare it dense and eventful."""

from __future__ import annotations

import copy
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.hooks import Hook
from mmengine.runner import Runner
from rich.console import Console
from rich.table import Table

from mmvitaccel.analysis.sweep.evaluate import evaluate
from mmvitaccel.analysis.tradeoff import draw_generated, train
from mmvitaccel.demo.alternation import frame_times
from mmvitaccel.demo.stages import Stages, clock
from mmvitaccel.errors import UserError
from mmvitaccel.runner.config import load_config
from mmvitaccel.video_demo import VideoDemo
from mmvitaccel.video_demo.files import FinishedVideo
from mmvitaccel.video_reader import open_video
from mmvitaccel.whole_files import whole_file

# A detector below this has not learned the task.
LEAST_MAP50 = 45.0
STAGES = 6
TIMED = 1  # number of videos whose frames are timed
SHOWN = 2  # number of videos in the mp4
FPS = 10.0  # of the mp4, slow enough to follow


@dataclass(frozen=True)
class Figures:
    """Results of one way to run the detector.

    Attributes:
        way: ``dense``, ``eventful`` or ``random tokens``.
        map50: mAP50 on all frames of the held-out videos, in percent.
        milliseconds: Median time per frame, without the first frames of a video: preprocessing,
            network and NMS.
        gmacs: Mean multiply-adds per frame, in 1e9.
    """

    way: str
    map50: float
    milliseconds: float
    gmacs: float


class Demo:
    """The stages of the demonstration. Results of an earlier run are reused.

    Args:
        configs: Configs of the detector: of its training at a smaller size, of the dense detector,
            and of the eventful one with :class:`~mmvitaccel.TopK`.
        work_dir: Folder for checkpoints, results and the video.
    """

    def __init__(self, configs: tuple[Path, Path, Path], work_dir: Path) -> None:
        self.small, self.dense, eventful = (load_config(str(path), {}) for path in configs)
        self.ways = {
            "dense": self.dense,
            "eventful": eventful,
            "random tokens": at_random(eventful),
        }
        self.work_dir = work_dir
        self.video = work_dir / "side_by_side.mp4"
        self.console = Console()
        self._stages = Stages(self.console, STAGES)

    def run(self) -> list[Figures]:
        """Run all stages and print the results.

        Returns:
            The results of each way, dense first.

        Raises:
            UserError: If a folder contains a training of another config or is not writable.
        """
        start = time.monotonic()
        self._stages.announce("Draw images to train on and videos to test on")
        for cfg in (self.small, self.dense):
            draw_generated(cfg, self._progress)
        self._stages.announce("Train a small ViTDet detector at 160 pixels")
        small = self.train(self.small, "train_160")
        self._stages.announce("Train it at 320 pixels")
        cfg = copy.deepcopy(self.dense)
        cfg.load_from = str(small)
        checkpoint = self.train(cfg, "train_320")
        accuracy = self.test(checkpoint)
        self._stages.announce(f"Time dense, eventful and random tokens in turn, {TIMED} video")
        times = frame_times(self.ways, checkpoint, TIMED)
        figures = [
            Figures(way, accuracy[way]["map50"], 1e3 * median(times[way]), accuracy[way]["gmacs"])
            for way in self.ways
        ]
        self._stages.announce("Write a video of dense and eventful side by side")
        self.write_video(checkpoint)
        results = self.work_dir / "results.json"
        _write_json(results, [asdict(row) for row in figures])
        self.console.print(figures_table(figures, self.dense.img_size))
        self.console.print(f"Dense and eventful side by side: {self.video}", soft_wrap=True)
        self.console.print(f"Figures: {results}; checkpoint: {checkpoint}", soft_wrap=True)
        self.console.print(f"Done in {clock(time.monotonic() - start)}.")
        return figures

    def train(self, cfg: Config, name: str) -> Path:
        """Train, resume an interrupted training, or reuse a finished one.

        Args:
            cfg: Config of the training.
            name: Name of its folder.

        Returns:
            The last checkpoint.

        Raises:
            UserError: If the folder contains a training of another config.
        """
        folder = self.work_dir / name
        _claim(folder, cfg)
        checkpoint = train(cfg, folder)
        self.console.print(f"  trained: {checkpoint}", highlight=False, soft_wrap=True)
        return checkpoint

    def test(self, checkpoint: Path) -> dict[str, dict[str, float]]:
        """Return ``map50`` and ``gmacs`` of each way with these weights; they are stored.

        A later run with the same weights and configs reuses them.
        """
        self._stages.announce("Test dense, eventful and random tokens on every frame of the videos")
        kept = self.work_dir / "accuracy.json"
        known = json.loads(kept.read_text()) if kept.is_file() else {}
        for way, cfg in self.ways.items():
            digest = _digest(checkpoint.read_bytes(), _content(cfg))
            if known.get(way, {}).get("of") != digest:
                folder = self.work_dir / "tests" / way.replace(" ", "_")
                hook = _ProgressHook(way, self._progress)
                found = evaluate(cfg, checkpoint, folder, hooks=[hook])
                figures = dict(map50=found["vid/mAP50"], gmacs=found["cost/gmacs"])
                known[way] = dict(of=digest, **figures)
                _write_json(kept, known)
            self.console.print(
                f"  {way}: mAP50 {known[way]['map50']:.2f} %, "
                f"{known[way]['gmacs']:.2f} G multiply-adds a frame",
                highlight=False,
            )
        return known

    def write_video(self, checkpoint: Path) -> None:
        """Write the mp4 of the dense and the eventful detector side by side."""
        demo = VideoDemo(self.ways["eventful"], checkpoint, beside=True)
        folder = Path(self.dense.data_root, "videos", "val")
        names = sorted(path for path in folder.iterdir() if path.is_dir())[:SHOWN]
        with FinishedVideo(self.video, FPS) as written:
            for number, name in enumerate(names, start=1):
                for frame in demo.play(open_video(name, FPS)):
                    written.add(frame.image)
                self._progress("videos", number, len(names))

    def _progress(self, what: str, done: int, total: int) -> None:
        if done % max(total // 10, 1) == 0 or done == total:
            self.console.print(f"  {what}: {done}/{total}", highlight=False)


class _ProgressHook(Hook):
    """Reports the progress of a test."""

    def __init__(self, what: str, progress: Callable[[str, int, int], None]) -> None:
        self.what, self.progress = what, progress

    def after_test_iter(self, runner: Runner, batch_idx: int, *args: Any, **kwargs: Any) -> None:
        """Report a frame."""
        self.progress(f"{self.what}, frames", batch_idx + 1, len(runner.test_dataloader))


def at_random(eventful: Config) -> Config:
    """Return a copy of a config that passes the same number of tokens, chosen at random."""
    cfg = copy.deepcopy(eventful)
    k = cfg.model.backbone.policy.k
    cfg.model.backbone.policy = ConfigDict(type="RandomTokens", k=k)
    return cfg


def verdict(figures: list[Figures], least: float = LEAST_MAP50) -> str | None:
    """Return a message if mAP50 of the dense or the eventful detector is too low, else None.

    Args:
        figures: Results from :meth:`Demo.run`.
        least: The lowest acceptable mAP50 in percent.
    """
    low = [row for row in figures if row.way != "random tokens" and not row.map50 >= least]
    if not low:
        return None
    what = " and ".join(f"{row.map50:.2f} % {row.way}" for row in low)
    return (
        f"The detector did not learn: mAP50 is {what} on the held-out videos and should be at "
        f"least {least:g} %; check the losses above, and please report it."
    )


def figures_table(figures: list[Figures], img_size: int) -> Table:
    """Return a table with one row for each way."""
    table = Table(title=f"Small ViTDet detector, {img_size} x {img_size} pixels, held-out videos")
    table.add_column("", no_wrap=True)
    for name in ("mAP50", "ms a frame", "multiply-adds a frame"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in figures:
        table.add_row(
            row.way, f"{row.map50:.1f} %", f"{row.milliseconds:.1f}", f"{row.gmacs:.2f} G"
        )
    return table


def _claim(folder: Path, cfg: Config) -> None:
    """Store the config's hash in the folder of a training, or compare it with the stored one."""
    note, digest = folder / "config.sha256", _digest(_content(cfg))
    if not note.is_file():
        with whole_file(note) as file:
            file.write(digest.encode())
    elif note.read_text() != digest:
        raise UserError(
            f"{folder} contains a training of another config or version; remove it to train again."
        )


def _content(cfg: Config) -> bytes:
    return json.dumps(cfg.to_dict(), sort_keys=True, default=str).encode()


def _digest(*parts: bytes) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()


def _write_json(path: Path, content: Any) -> None:
    with whole_file(path) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())
