"""Description of a video transformer for run-length tokenization, and the state of RLT on it."""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from mmvitaccel.adapters.attach import Override, link
from mmvitaccel.core.kernels.export import refuse_export

METHOD = "RLT"


@dataclass(frozen=True)
class RLTAdapter:
    """One family of video transformers.

    Attributes:
        classes: ``module.Class`` names of the models; subclasses match.
        overrides: The method that gets a batch of clips, with the function that replaces it.
    """

    classes: tuple[str, ...]
    overrides: Mapping[str, Override]


class _Last(threading.local):
    """The last forward pass of a thread."""

    kept: Tensor | None = None


class RLTState:
    """State of one attachment.

    Attributes:
        threshold: Largest mean absolute difference at which a tubelet repeats.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self._own = _Last()
        self._latest: Tensor | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> RLTState:
        return RLTState(copy.deepcopy(self.threshold))

    @property
    def kept(self) -> Tensor | None:
        """Tubelets kept by this thread's last pass (B, S, N), or by the latest pass of any."""
        return self._latest if self._own.kept is None else self._own.kept

    def saw(self, kept: Tensor) -> None:
        """Record the tubelets that a pass of this thread kept."""
        self._own.kept = self._latest = kept


def state_of(model: nn.Module) -> RLTState:
    """The state, at the start of a forward pass.

    Raises:
        RuntimeError: The model is being exported.
    """
    refuse_export(
        "RLT cannot be exported: the number of kept tokens depends on the clip, but a graph is "
        "fixed; remove RLT and export the plain model."
    )
    return link(model, METHOD).state
