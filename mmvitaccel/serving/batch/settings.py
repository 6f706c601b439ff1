"""Settings of the detector that runs on each video of a batch."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmvitaccel.errors import UserError
from mmvitaccel.models.weights.wrapped import USUAL, Choice
from mmvitaccel.runner.config import load_config
from mmvitaccel.video_demo import VideoDemo
from mmvitaccel.video_demo.demo import LEAST_SCORE
from mmvitaccel.video_demo.schedule import check_bounds, check_score, parse_budget

_BLOCK = 2**20  # bytes


@dataclass(frozen=True)
class BatchSettings:
    """Settings from which each worker builds its detector.

    Attributes:
        config: Path of an eventful detector's config, or ``package::path``.
        checkpoint: Path of its weights, or a URL, which every machine downloads.
        options: Values by dotted key of the config, as with ``--cfg-options``.
        budget: A budget such as ``'200ms'`` or ``'40%'``; None leaves the policy as it is.
        bounds: Lowest and highest k of the budget.
        k: Tokens that pass each gate, for a config without Eventful.
        track: Whether detections get track ids.
        least_score: Least score of a detection that is kept.
        fps: Frame rate of numbered pictures, or in place of a file's own.
        choice: Which weights of the checkpoint to load.

    Raises:
        UserError: The bounds are invalid, or there is no budget for them; the score is not from 0
            to 1.
    """

    config: str
    checkpoint: str
    options: Mapping[str, Any] = field(default_factory=dict)
    budget: str | None = None
    bounds: tuple[int, int] | None = None
    k: int | None = None
    track: bool = False
    least_score: float = LEAST_SCORE
    fps: float | None = None
    choice: Choice = USUAL

    def __post_init__(self) -> None:
        check_bounds(self.bounds, has_budget=self.budget is not None)
        check_score(self.least_score)
        # A worker may run in another working directory
        if "::" not in self.config:
            object.__setattr__(self, "config", os.path.abspath(self.config))
        if "://" not in self.checkpoint:
            object.__setattr__(self, "checkpoint", os.path.abspath(self.checkpoint))

    def detector(self) -> VideoDemo:
        """Build the detector.

        Raises:
            UserError: The config, the checkpoint or the budget is invalid.
        """
        return VideoDemo(
            load_config(self.config, self.options),
            self.checkpoint,
            None if self.budget is None else parse_budget(self.budget),
            self.bounds,
            self.k,
            self.track,
            self.least_score,
            self.choice,
            draw=False,
        )

    def described(self) -> dict[str, Any]:
        """The settings that results depend on; they are written to results and compared later.

        The config is represented by a hash of all its settings, a checkpoint by a hash of its
        bytes or by its URL.

        Raises:
            UserError: The config or the checkpoint cannot be read.
        """
        cfg = load_config(self.config, self.options).to_dict()
        text = json.dumps(cfg, sort_keys=True, default=_as_text)
        return {
            "config": hashlib.sha256(text.encode()).hexdigest(),
            "checkpoint": _hash_of(self.checkpoint),
            "budget": self.budget,
            "bounds": None if self.bounds is None else list(self.bounds),
            "k": self.k,
            "track": self.track,
            "least_score": self.least_score,
            "fps": self.fps,
            "weights": self.choice.entry,
            "prefix": self.choice.prefix,
        }


def _as_text(value: Any) -> Any:
    """A config value that json cannot encode, as text that is equal in every process."""
    if isinstance(value, (set, frozenset)):
        return sorted(map(str, value))
    named = getattr(value, "__qualname__", None)
    return f"{value.__module__}.{named}" if named else str(value)


def _hash_of(path: str) -> str:
    if "://" in path:
        return path
    if not Path(path).is_file():
        raise UserError(f"checkpoint {path} does not exist; give the path of a .pth file.")
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            found.update(block)
    return found.hexdigest()
