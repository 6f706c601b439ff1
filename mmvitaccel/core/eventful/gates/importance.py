"""Importance of a stream's tokens, from the positions of objects or from attention.

An importance is a dataclass of options with one method, ``of``; its state is in the stream's
:class:`Matters`. Positions of objects come from outside: the boxes of a detector or a map of the
last frame, given to ``handle.saw_objects``. Attention comes from the model itself.

Shapes: (H, W) is the grid of tokens.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from mmvitaccel.arguments import number, whole_number


class Objects(NamedTuple):
    """Positions of objects in a frame, as boxes or as a map.

    Attributes:
        boxes: (n, 4) left, top, right, bottom, from 0 to 1 relative to the picture's size.
        heat: (h, w) of any resolution, at least 0; larger values are more important.
    """

    boxes: Tensor | None = None
    heat: Tensor | None = None

    def checked(self) -> Objects:
        """Validated copy without gradients.

        Raises:
            ValueError: Not exactly one of the two is given, or its shape is wrong.
        """
        if (self.boxes is None) == (self.heat is None):
            raise ValueError(
                f"Objects: {'neither' if self.boxes is None else 'both'} of boxes and heat "
                "are given; give one."
            )
        if self.boxes is not None and (self.boxes.ndim != 2 or self.boxes.shape[1] != 4):
            raise ValueError(f"Objects: boxes are {tuple(self.boxes.shape)}, not (n, 4).")
        if self.heat is not None and self.heat.ndim != 2:
            raise ValueError(f"Objects: heat is {tuple(self.heat.shape)}, not (h, w).")
        return Objects(*(None if given is None else given.detach() for given in self))

    def on_grid(self, grid: tuple[int, int], grow: int) -> Tensor:
        """(H, W) float32 from 0 to 1, with objects extended by ``grow`` tokens on all sides."""
        heat = self._covered(grid) if self.heat is None else self._pooled(grid)
        return F.max_pool2d(heat[None, None], 2 * grow + 1, stride=1, padding=grow)[0, 0]

    def _covered(self, grid: tuple[int, int]) -> Tensor:
        """1 for tokens that overlap with a box."""
        height, width = grid
        left, top, right, bottom = self.boxes.float().unbind(1)
        y = torch.arange(height, device=left.device)
        x = torch.arange(width, device=left.device)
        rows = (y < bottom[:, None] * height) & (y + 1 > top[:, None] * height)
        columns = (x < right[:, None] * width) & (x + 1 > left[:, None] * width)
        return (rows[:, :, None] & columns[:, None, :]).any(0).float()

    def _pooled(self, grid: tuple[int, int]) -> Tensor:
        heat = F.adaptive_avg_pool2d(self.heat.float()[None, None], grid)[0, 0]
        return heat / heat.amax().clamp_min(torch.finfo(torch.float32).tiny)


@dataclass
class Matters:
    """State of a stream for its importances.

    Attributes:
        objects: The last given objects; None before the first.
        attended: Attention that each token received in the last frame (H * W), by block.
        kept: State of each importance.
    """

    objects: Objects | None = None
    attended: dict[int, Tensor] = field(default_factory=dict)
    kept: dict[Hashable, Any] = field(default_factory=dict)


class Importance(Protocol):
    """Protocol: computes the importance of each token."""

    def of(self, matters: Matters, grid: tuple[int, int]) -> Tensor | None:
        """Importance of the tokens; called once per frame, before the first gate.

        Args:
            matters: State of the stream; the importance stores its own state in ``kept``.
            grid: Grid size (H, W) in tokens.

        Returns:
            (H, W) from 0 to 1, or None if nothing is known yet.
        """


@dataclass(frozen=True)
class LastObjects:
    """Importance of 1 at the last given objects, extended on all sides.

    Attributes:
        grow: Extension in tokens on all sides, about the movement of an object per frame.

    Raises:
        ValueError: ``grow`` is not a whole number or negative.
    """

    grow: int = 1

    def __post_init__(self) -> None:
        grow = whole_number("LastObjects", "grow", self.grow, least=0, of="tokens")
        object.__setattr__(self, "grow", grow)

    def of(self, matters: Matters, grid: tuple[int, int]) -> Tensor | None:
        """See :class:`Importance`."""
        return None if matters.objects is None else matters.objects.on_grid(grid, self.grow)


@dataclass(frozen=True)
class ReceivedAttention:
    """The attention that a token received from all tokens in the last frame, in one block.

    It is the mean over heads and queries of the softmax, computed from the stored queries and keys,
    and scaled to a maximum of 1. The cost is that of the block's dense product of queries and keys.

    Attributes:
        block: Index of a block with global attention; negative ones count from the last.

    Raises:
        ValueError: ``block`` is not a whole number.
    """

    block: int = -1

    def __post_init__(self) -> None:
        block = whole_number("ReceivedAttention", "block", self.block, why="such as -1")
        object.__setattr__(self, "block", block)

    def of(self, matters: Matters, grid: tuple[int, int]) -> Tensor | None:
        """See :class:`Importance`."""
        received = matters.attended.get(self.block)
        if received is None:
            return None
        heat = received.unflatten(0, grid)
        return heat / heat.amax().clamp_min(torch.finfo(torch.float32).tiny)


@dataclass(frozen=True)
class RunningObjects:
    """Running mean of the objects' positions over the frames with given objects.

    Attributes:
        keep: Weight of the previous mean in an update, at least 0 and below 1.

    Raises:
        ValueError: ``keep`` is outside this range.
    """

    keep: float = 0.8

    def __post_init__(self) -> None:
        keep = number("RunningObjects", "keep", self.keep, least=0, below=1)
        object.__setattr__(self, "keep", keep)

    def of(self, matters: Matters, grid: tuple[int, int]) -> Tensor | None:
        """See :class:`Importance`."""
        told, mean = matters.kept.get(self, (None, None))
        if matters.objects is not told:
            now = matters.objects.on_grid(grid, grow=0)
            mean = now if mean is None else torch.lerp(now, mean, self.keep)
            matters.kept[self] = matters.objects, mean
        return mean
