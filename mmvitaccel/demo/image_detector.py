"""The demonstration on images: train, test and time a detector with the tools of users."""

from __future__ import annotations

import json
import os
import shlex
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS
from rich.console import Console
from rich.table import Table
from torch import nn

from mmvitaccel.analysis.timing import alternate
from mmvitaccel.datasets.synthetic import ImageSetSettings, make_image_set
from mmvitaccel.demo.stages import Stages, clock
from mmvitaccel.errors import UserError
from mmvitaccel.pictures.detections import draw_comparison
from mmvitaccel.runner.checkpoint import check_checkpoint
from mmvitaccel.runner.config import load_config
from mmvitaccel.runner.session import build_model

# A detector below this has not learned the task.
LEAST_AP50 = 0.5
BATCH_SIZE = 16
ROUNDS = 20
STAGES = 7


@dataclass(frozen=True)
class Figures:
    """Results of the detector as trained, or with BatchNorm folded.

    Attributes:
        ap50: COCO's AP at an IoU of 0.5 on the held-out images.
        params: Number of parameters.
        macs: Multiply-adds per image.
        images_per_second: Median speed of preprocessing, network and NMS, without reading files.
    """

    ap50: float
    params: int
    macs: int
    images_per_second: float


class Demo:
    """The stages of the demonstration. Each one is announced when it starts.

    Args:
        tools: Folder of ``train.py``, ``test.py`` and ``analysis/get_flops.py``.
        config: Config of the detector, with the paths of its images, ``img_size`` and ``classes``.
        work_dir: Folder for all other files.
        settings: Settings of the generated images; None for the defaults.
    """

    def __init__(
        self,
        tools: Path,
        config: Path,
        work_dir: Path,
        settings: ImageSetSettings | None = None,
    ) -> None:
        self.tools = tools
        self.config = config
        self.work_dir = work_dir
        self.settings = settings or ImageSetSettings()
        self.cfg = load_config(str(config), {})
        self.console = Console()
        self._stages = Stages(self.console, STAGES)
        self._figures: dict[str, Figures] = {}

    def run(self) -> float:
        """Run all stages and print the results.

        Returns:
            AP50 of the detector as trained or folded, whichever is less.

        Raises:
            UserError: If one of the tools fails.
        """
        start = time.monotonic()
        self.draw_images()
        checkpoint = self.train()
        trained = self.test(checkpoint, "test")
        deployed = self.test(checkpoint, "test_deploy", "--deploy")
        self._stages.announce("Count parameters and multiply-adds, before and after folding")
        counts = [
            self.count("macs.json"),
            self.count("macs_deploy.json", "--cfg-options", "model.backbone.deploy=True"),
        ]
        threads = torch.get_num_threads()
        self._stages.announce(
            f"Time both in turn, batch {BATCH_SIZE}, {threads} threads, {ROUNDS} rounds"
        )
        model, folded = self.load(checkpoint), self.load(checkpoint)
        folded.backbone.switch_to_deploy()
        batch = held_out(self.cfg, BATCH_SIZE)
        speeds = images_per_second({"trained": model, "deployed": folded}, batch, ROUNDS)
        self._stages.announce("Draw detections next to ground truth")
        picture = self.work_dir / "detections.png"
        draw_comparison(batch, predict(folded, batch), self.cfg.classes, picture)
        rows = self._figures = {
            "trained": Figures(trained, *counts[0], speeds["trained"]),
            "deployed": Figures(deployed, *counts[1], speeds["deployed"]),
        }
        results = self.work_dir / "results.json"
        results.write_text(json.dumps({k: asdict(v) for k, v in rows.items()}, indent=2) + "\n")
        self.console.print(figures_table(rows, self.cfg.img_size))
        self.console.print(f"Detections next to ground truth: {picture}", soft_wrap=True)
        self.console.print(f"Figures: {results}; checkpoint: {checkpoint}", soft_wrap=True)
        self.console.print(f"Done in {clock(time.monotonic() - start)}.")
        self.console.print("Next: make demo-video, a detector on videos, dense and eventful.")
        return min(trained, deployed)

    def rows(self) -> list[dict[str, Any]]:
        """Return the results of :meth:`run`, one row for each state of the detector."""
        return [dict(state=state) | asdict(figures) for state, figures in self._figures.items()]

    def draw_images(self) -> None:
        """Generate the images in the folder that the config names, or reuse them."""
        folder = Path(self.cfg.train_dataloader.dataset.data_root)
        settings = self.settings
        self._stages.announce(
            f"Draw {settings.num_train} images to train on and {settings.num_val} held out, "
            f"in {folder}"
        )
        start = time.monotonic()
        make_image_set(folder, settings, overwrite=True, progress=self._drawn)
        self.console.print(f"  ready after {clock(time.monotonic() - start)}")

    def _drawn(self, what: str, done: int, total: int) -> None:
        if done % max(total // 4, 1) == 0 or done == total:
            self.console.print(f"  {what}: {done}/{total}")

    def train(self) -> Path:
        """Train from scratch and return the last checkpoint."""
        self._stages.announce("Train an EfficientViT RetinaNet from scratch on the CPU")
        folder = self.work_dir / "train"
        self.call("train.py", str(self.config), "--work-dir", str(folder))
        return Path((folder / "last_checkpoint").read_text().strip())

    def test(self, checkpoint: Path, name: str, *flags: str) -> float:
        """Test on the held-out images and return AP50."""
        self._stages.announce(f"Test on held-out images {' '.join(flags)}".rstrip())
        folder = self.work_dir / name
        self.call("test.py", str(self.config), str(checkpoint), "--work-dir", str(folder), *flags)
        # mmengine names the file after the start time of the run.
        newest = max(folder.glob("*/*.json"), key=lambda path: path.stat().st_mtime)
        return float(json.loads(newest.read_text())["coco/bbox_mAP_50"])

    def count(self, name: str, *flags: str) -> tuple[int, int]:
        """Return the numbers of parameters and multiply-adds."""
        out = self.work_dir / name
        self.call("analysis/get_flops.py", str(self.config), "--json", str(out), *flags)
        figures = json.loads(out.read_text())
        return figures["params"], figures["macs"]

    def load(self, checkpoint: Path) -> nn.Module:
        """Build the detector in eval mode with the trained weights."""
        model = build_model(self.cfg)
        check_checkpoint(model, str(checkpoint))
        return model.eval()

    def call(self, tool: str, *arguments: str) -> None:
        """Run a tool as a user would; its output is shown.

        Raises:
            UserError: If the tool fails.
        """
        script = str(self.tools / tool)
        # One core is left for loading images: OpenMP's threads wait for the slowest of them.
        threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 2) - 1))
        env = {**os.environ, "OMP_NUM_THREADS": threads}
        shown = f"OMP_NUM_THREADS={threads} {shlex.join(['python', script, *arguments])}"
        self.console.print(f"  $ {shown}", highlight=False, markup=False, soft_wrap=True)
        command = [sys.executable, script, *arguments]
        status = subprocess.run(command, env=env, check=False).returncode
        if status:
            raise UserError(f"'{shown}' ended with status {status}; see its message above.")


def held_out(cfg: Config, count: int) -> dict[str, Any]:
    """Read the first held-out images as a batch for the detector's ``test_step``.

    Args:
        cfg: A config with ``test_dataloader``.
        count: Maximum number of images.

    Returns:
        ``inputs`` and ``data_samples``, each a list with one entry per image.
    """
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    return pseudo_collate([dataset[index] for index in range(min(count, len(dataset)))])


def predict(model: nn.Module, batch: dict[str, Any]) -> list[Any]:
    """Run the detector and return one data sample per image."""
    with torch.no_grad():
        return model.test_step(batch)


def images_per_second(
    models: dict[str, nn.Module], batch: dict[str, Any], rounds: int
) -> dict[str, float]:
    """Time detectors in turn on the same images.

    Args:
        models: Detectors by name, in eval mode.
        batch: A batch from :func:`held_out`.
        rounds: Number of timings per detector.

    Returns:
        Images per second of each detector, from the median round.
    """
    runs = {name: lambda model=model: predict(model, batch) for name, model in models.items()}
    seconds = alternate(runs, rounds)
    return {name: len(batch["inputs"]) / statistics.median(s) for name, s in seconds.items()}


def figures_table(rows: dict[str, Figures], img_size: int) -> Table:
    """Return a table with one row for each state of the detector."""
    title = f"EfficientViT RetinaNet, {img_size} x {img_size} pixels, held-out images"
    table = Table(title=title)
    table.add_column("", no_wrap=True)
    for name in ("AP50", "parameters", "multiply-adds", f"images/s (batch {BATCH_SIZE})"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, row in rows.items():
        table.add_row(
            name,
            f"{row.ap50:.3f}",
            f"{row.params:,}",
            f"{row.macs / 1e6:.1f} M",
            f"{row.images_per_second:.0f}",
        )
    return table


def verdict(ap50: float) -> str | None:
    """Return a message if the detector has not learned, else None."""
    if ap50 >= LEAST_AP50:
        return None
    return (
        f"The detector did not learn: AP50 is {ap50:.3f} on the held-out images and should be at "
        f"least {LEAST_AP50}; check the losses above, and please report it."
    )
