"""The demonstration: a detector from nothing to figures, through the tools that users call."""

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
from mmvitaccel.errors import UserError
from mmvitaccel.pictures.detections import draw_comparison
from mmvitaccel.runner.checkpoint import check_checkpoint
from mmvitaccel.runner.config import load_config
from mmvitaccel.runner.session import build_model

# reason: less, and the detector has not learned what it was shown
LEAST_AP50 = 0.5
BATCH_SIZE = 16
ROUNDS = 20
STAGES = 7


@dataclass(frozen=True)
class Figures:
    """What is measured of the detector, once as trained and once folded.

    Attributes:
        ap50: COCO's AP at an overlap of 0.5 on the held-out images.
        params: Learned parameters.
        macs: Multiply-adds for one image.
        images_per_second: Median; preprocessing, network and box suppression, without reading
            files.
    """

    ap50: float
    params: int
    macs: int
    images_per_second: float


class Demo:
    """Every stage of the demonstration, each printed as it starts.

    Args:
        tools: Folder of ``train.py``, ``test.py`` and ``analysis/get_flops.py``.
        config: The detector's config. It says where its images are, and sets ``img_size`` and
            ``classes``.
        work_dir: Where everything else goes.
        settings: The images to draw; the default set if None.
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
        self._stage = 0
        self._figures: dict[str, Figures] = {}

    def run(self) -> float:
        """Do everything and print the table.

        Returns:
            AP50 of the detector as trained, or folded if that is less.

        Raises:
            UserError: If one of the tools fails.
        """
        start = time.monotonic()
        self.draw_images()
        checkpoint = self.train()
        trained = self.test(checkpoint, "test")
        deployed = self.test(checkpoint, "test_deploy", "--deploy")
        self.announce("Count parameters and multiply-adds, before and after folding")
        counts = [
            self.count("macs.json"),
            self.count("macs_deploy.json", "--cfg-options", "model.backbone.deploy=True"),
        ]
        threads = torch.get_num_threads()
        self.announce(f"Time both in turn, batch {BATCH_SIZE}, {threads} threads, {ROUNDS} rounds")
        model, folded = self.load(checkpoint), self.load(checkpoint)
        folded.backbone.switch_to_deploy()
        batch = held_out(self.cfg, BATCH_SIZE)
        speeds = images_per_second({"trained": model, "deployed": folded}, batch, ROUNDS)
        self.announce("Draw detections next to ground truth")
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
        self.console.print(f"Done in {_clock(time.monotonic() - start)}.")
        self.console.print("Next: make demo-video, a detector on videos, dense and eventful.")
        return min(trained, deployed)

    def rows(self) -> list[dict[str, Any]]:
        """What :meth:`run` measured, a row for each state of the detector."""
        return [dict(state=state) | asdict(figures) for state, figures in self._figures.items()]

    def announce(self, text: str) -> None:
        """Print the number and name of the stage that starts."""
        self._stage += 1
        line = f"\n[{self._stage}/{STAGES}] {text}"
        self.console.print(line, style="bold", markup=False, highlight=False, soft_wrap=True)

    def draw_images(self) -> None:
        """Make the image set where the config looks for it, or reuse it."""
        folder = Path(self.cfg.train_dataloader.dataset.data_root)
        settings = self.settings
        self.announce(
            f"Draw {settings.num_train} images to train on and {settings.num_val} held out, "
            f"in {folder}"
        )
        start = time.monotonic()
        make_image_set(folder, settings, overwrite=True, progress=self._drawn)
        self.console.print(f"  ready after {_clock(time.monotonic() - start)}")

    def _drawn(self, what: str, done: int, total: int) -> None:
        if done % max(total // 4, 1) == 0 or done == total:
            self.console.print(f"  {what}: {done}/{total}")

    def train(self) -> Path:
        """Train from scratch; returns the last checkpoint."""
        self.announce("Train an EfficientViT RetinaNet from scratch on the CPU")
        folder = self.work_dir / "train"
        self.call("train.py", str(self.config), "--work-dir", str(folder))
        return Path((folder / "last_checkpoint").read_text().strip())

    def test(self, checkpoint: Path, name: str, *flags: str) -> float:
        """Test on the held-out images; returns AP50."""
        self.announce(f"Test on held-out images {' '.join(flags)}".rstrip())
        folder = self.work_dir / name
        self.call("test.py", str(self.config), str(checkpoint), "--work-dir", str(folder), *flags)
        # reason: mmengine names the file after the time that the run started
        newest = max(folder.glob("*/*.json"), key=lambda path: path.stat().st_mtime)
        return float(json.loads(newest.read_text())["coco/bbox_mAP_50"])

    def count(self, name: str, *flags: str) -> tuple[int, int]:
        """Count the model; returns parameters and multiply-adds."""
        out = self.work_dir / name
        self.call("analysis/get_flops.py", str(self.config), "--json", str(out), *flags)
        figures = json.loads(out.read_text())
        return figures["params"], figures["macs"]

    def load(self, checkpoint: Path) -> nn.Module:
        """Build the detector with trained weights, ready to predict."""
        model = build_model(self.cfg)
        check_checkpoint(model, str(checkpoint))
        return model.eval()

    def call(self, tool: str, *arguments: str) -> None:
        """Run a tool as a user would, its output passed on.

        Raises:
            UserError: If it fails.
        """
        script = str(self.tools / tool)
        # reason: OpenMP's threads wait for the slowest, and one core has the images to load
        threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 2) - 1))
        env = {**os.environ, "OMP_NUM_THREADS": threads}
        shown = f"OMP_NUM_THREADS={threads} {shlex.join(['python', script, *arguments])}"
        self.console.print(f"  $ {shown}", highlight=False, markup=False, soft_wrap=True)
        command = [sys.executable, script, *arguments]
        status = subprocess.run(command, env=env, check=False).returncode
        if status:
            raise UserError(f"'{shown}' ended with status {status}; its own message is above.")


def held_out(cfg: Config, count: int) -> dict[str, Any]:
    """Read the first held-out images, as the detector's ``test_step`` takes them.

    Args:
        cfg: A config with ``test_dataloader``.
        count: How many, at most.

    Returns:
        ``inputs`` and ``data_samples``, each a list with one entry per image.
    """
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    return pseudo_collate([dataset[index] for index in range(min(count, len(dataset)))])


def predict(model: nn.Module, batch: dict[str, Any]) -> list[Any]:
    """Detect; returns one data sample per image."""
    with torch.no_grad():
        return model.test_step(batch)


def images_per_second(
    models: dict[str, nn.Module], batch: dict[str, Any], rounds: int
) -> dict[str, float]:
    """Time detectors in turn on the same images.

    Args:
        models: Detectors by name, in eval mode.
        batch: From :func:`held_out`.
        rounds: How often each is timed.

    Returns:
        Images per second of each, from the median round.
    """
    runs = {name: lambda model=model: predict(model, batch) for name, model in models.items()}
    seconds = alternate(runs, rounds)
    return {name: len(batch["inputs"]) / statistics.median(s) for name, s in seconds.items()}


def figures_table(rows: dict[str, Figures], img_size: int) -> Table:
    """Lay out figures, a line per state of the detector."""
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
    """Say that the detector has not learned, if so."""
    if ap50 >= LEAST_AP50:
        return None
    return (
        f"The detector did not learn: AP50 is {ap50:.3f} on the held-out images and should be at "
        f"least {LEAST_AP50}; look at the losses above, and please report it."
    )


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d} min"
