"""What run-length tokenization has to know of a video transformer."""

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
        overrides: The method that is given a batch of clips, with what runs in its place.
    """

    classes: tuple[str, ...]
    overrides: Mapping[str, Override]


class _Last(threading.local):
    """The last pass of a thread."""

    kept: Tensor | None = None


class RLTState:
    """What one attachment knows.

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
        """What this thread's last pass kept (B, S, N); of a thread without one, the latest."""
        return self._latest if self._own.kept is None else self._own.kept

    def saw(self, kept: Tensor) -> None:
        """Note what a pass of this thread kept."""
        self._own.kept = self._latest = kept


def state_of(model: nn.Module) -> RLTState:
    """The state, at the start of a pass.

    Raises:
        RuntimeError: The model is being exported.
    """
    refuse_export(
        "RLT is not exported: how many tokens it keeps depends on the clip, which no fixed graph "
        "holds; remove it and export the plain model."
    )
    return link(model, METHOD).state
