"""What a batch does with each of its videos."""

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
from mmvitaccel.video_demo.schedule import parse_budget

_BLOCK = 2**20  # bytes


@dataclass(frozen=True)
class BatchSettings:
    """What is needed to build a detector once more, on another worker.

    Attributes:
        config: File of an eventful detector, or ``package::path``.
        checkpoint: File of its weights, or an address, which every machine downloads.
        options: Dotted keys of the config to values, as ``--cfg-options``.
        budget: Such as ``'200ms'`` or ``'40%'``; None leaves the policy as it is.
        bounds: Lowest and highest k of a budget.
        k: Tokens that pass each gate, for a config without Eventful.
        track: Whether detections get identities.
        least_score: Of a detection that is kept.
        fps: Frame rate of pictures, or in place of a file's.
        choice: Which weights of the checkpoint.

    Raises:
        UserError: The bounds are none.
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
        if self.bounds is not None and not 1 <= self.bounds[0] <= self.bounds[1]:
            low, high = self.bounds
            raise UserError(f"--bounds {low} {high}: give a k of 1 or more, then one as large.")
        # reason: a worker may run in another folder
        if "::" not in self.config:
            object.__setattr__(self, "config", os.path.abspath(self.config))
        if "://" not in self.checkpoint:
            object.__setattr__(self, "checkpoint", os.path.abspath(self.checkpoint))

    def detector(self) -> VideoDemo:
        """Build the detector.

        Raises:
            UserError: The config, the checkpoint or the budget does not serve.
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
        """What results depend on, to compare with what is written in them.

        The config is there by the hash of all its settings, a checkpoint by that of its bytes or by
        its address.

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
    """A value of a config that json does not know, the same in every process."""
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
