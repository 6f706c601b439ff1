"""Compares formats on the same batches: accuracy, time, memory and size."""

from __future__ import annotations

import copy
import io
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmvitaccel.analysis.formats.formats import Built, Source, build
from mmvitaccel.analysis.formats.part import GraphPart
from mmvitaccel.deploy.onnx_export import relative_error
from mmvitaccel.errors import UserError, building, running
from mmvitaccel.fit.check import check_test
from mmvitaccel.loaders.checked import check_loader
from mmvitaccel.models.weights.wrapped import USUAL, Choice
from mmvitaccel.registry import type_name
from mmvitaccel.runner.attached_hooks import load_model

_WARMUP = 2
_COSTS = ("MacsMetric",)  # these need a hook that runs frames twice, so they are left out


@dataclass
class Row:
    """Results of a format on the test set.

    Attributes:
        name: Of the format.
        replaces: Modules that its artifact replaces.
        size: Size of the artifact in bytes.
        error: Largest difference to torch's outputs on the first batch, relative to the largest
            value; None for torch.
        seconds: Time of each batch, from preprocessing to results.
        images: Images in each batch.
        figures: Metrics of the config's evaluators on the artifact's results.
        memory: Growth in bytes of a process that loads and runs it; None if not measured.
    """

    name: str
    replaces: tuple[str, ...]
    size: int
    error: float | None
    seconds: list[float] = field(default_factory=list)
    images: list[int] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    memory: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The row with a summary of its times."""
        ms = sorted(1e3 * s for s in self.seconds)
        return dict(
            format=self.name,
            replaces=list(self.replaces),
            ms_p50=median(ms),
            ms_p99=ms[min(int(0.99 * len(ms)), len(ms) - 1)],
            images_per_second=median(n / s for n, s in zip(self.images, self.seconds)),
            memory_bytes=self.memory,
            size_bytes=self.size,
            error=self.error,
            batches=len(ms),
            figures=self.figures,
        )


class Comparison:
    """A checkpoint in several formats, on the config's own test set, on the CPU.

    Args:
        cfg: The config; the methods of its hooks are attached to the model.
        checkpoint: Its weights.
        folder: Folder for the exported files.
        calibration: Number of images for the calibration of int8.
        choice: Selects the weights in the checkpoint.
        shapes: Shapes of the test set's batches, if known; otherwise the test set is loaded once to
            find them.

    Raises:
        UserError: Config, checkpoint and data do not match.
    """

    def __init__(
        self,
        cfg: Config,
        checkpoint: str,
        folder: Path,
        calibration: int,
        choice: Choice = USUAL,
        shapes: Sequence[tuple[int, ...]] = (),
    ) -> None:
        check_test(cfg, checkpoint, choice)
        MMLogger.get_current_instance().setLevel("WARNING")
        self.cfg, self.loader = cfg, test_loader(cfg)
        model = load_model(cfg, checkpoint, choice)
        model.eval()
        model.requires_grad_(False)
        part = GraphPart(cfg, model)
        shapes = shapes or _shapes(model, self.loader)
        self.first = next(iter(self.loader))
        self.inputs = _inputs(model, self.first)
        with torch.no_grad(), running(model, "the first batch"):
            part(self.inputs)
        folder.mkdir(parents=True, exist_ok=True)
        self.source = Source(cfg, part, shapes, folder, calibration)
        self.rows: list[Row] = []
        self._built: dict[str, Built] = {}

    def add(self, name: str) -> None:
        """Build a format, and compare its outputs for the first batch with torch.

        Raises:
            UserError: The format is not possible.
        """
        made = build(name, self.source)
        self._built[name] = made
        self.rows.append(Row(name, made.replaces, made.size, self._error(made)))

    def run(self, console: Console) -> None:
        """Test all formats, alternating batch by batch in rotating order."""
        evaluators = {row.name: self._evaluator() for row in self.rows}
        for row in self.rows:
            for _ in range(_WARMUP):
                self.step(row, self.first)
        for number, batch in enumerate(
            track(self.loader, "batches", len(self.loader), console=console)
        ):
            for row in self.rows if number % 2 == 0 else reversed(self.rows):
                results, seconds = self.step(row, batch)
                row.seconds.append(seconds)
                row.images.append(len(results))
                evaluators[row.name].process(data_samples=results, data_batch=batch)
        for row in self.rows:
            # Evaluators print their own tables
            with redirect_stdout(io.StringIO()):
                row.figures = evaluators[row.name].evaluate(len(self.loader.dataset))

    def step(self, row: Row, batch: dict[str, Any]) -> tuple[Sequence[Any], float]:
        """Results of a format for a batch of the loader, and the time in seconds."""
        model = self._built[row.name].model
        data = copy.deepcopy(batch)  # Results are written into the samples
        with torch.no_grad(), running(model, row.name):
            start = time.perf_counter()
            results = model.test_step(data)
            return results, time.perf_counter() - start

    def drop_what_is_replaced(self) -> None:
        """Free the weights that only torch's own model needs; it cannot run afterwards."""
        for made in self._built.values():
            if made.file:
                for module in self.source.part.modules_of():
                    for weight in (*module.parameters(), *module.buffers()):
                        weight.data = weight.new_empty(0)

    def _error(self, made: Built) -> float | None:
        if made.run is None:
            return None
        reference = GraphPart(self.cfg, self.source.part.model)
        reference.names = made.replaces
        with torch.no_grad(), running(made.model, "the first batch", every_error=True):
            pairs = list(zip(made.run(self.inputs), reference(self.inputs)))
        return max(relative_error(own.float(), other) for own, other in pairs)

    def _evaluator(self) -> Evaluator:
        given = self.cfg.get("test_evaluator")
        metrics = list(given) if isinstance(given, (list, tuple)) else [given] if given else []
        metrics = [copy.deepcopy(m) for m in metrics if type_name(m) not in _COSTS]
        if not metrics:
            raise UserError("test_evaluator returned no metric; add an evaluator.")
        with building("test_evaluator"):
            evaluator = Evaluator(metrics)
        evaluator.dataset_meta = getattr(self.loader.dataset, "metainfo", None)
        return evaluator


def test_loader(cfg: Config) -> DataLoader:
    """The config's test set, loaded in this process, because workers would disturb the timing."""
    given = copy.deepcopy(cfg.test_dataloader)
    given.update(num_workers=0, persistent_workers=False)
    given.pop("prefetch_factor", None)
    with building("test_dataloader"):
        return check_loader(Runner.build_dataloader(given, seed=0))


def _shapes(model: nn.Module, loader: DataLoader) -> list[tuple[int, ...]]:
    """The shapes of the test set's batches as the model sees them; a full batch first."""
    found: dict[tuple[int, ...], None] = {}
    for batch in loader:
        found[tuple(_inputs(model, batch).shape)] = None
    return sorted(found, key=lambda shape: -shape[0])


def _inputs(model: nn.Module, batch: dict[str, Any]) -> Tensor:
    """Input of the backbone for a batch; views of clips are merged into the batch."""
    inputs = model.data_preprocessor(copy.deepcopy(batch), False)["inputs"]
    return inputs.flatten(0, 1) if inputs.dim() > 4 else inputs
