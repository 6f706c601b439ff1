"""How much the tokens of a stream matter, by where its objects were.

An importance is a dataclass of options with one method, ``of``; what it remembers of a stream lies
in the stream's :class:`Matters`. What is known of objects comes from outside: a detector's boxes or
a map of the last frame, by ``handle.saw_objects``. The model itself knows to what it attends.

Shapes: (H, W) is the grid of tokens.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Objects(NamedTuple):
    """Where objects were in a frame: one of the two.

    Attributes:
        boxes: (n, 4) left, top, right, bottom, from 0 to 1 of the picture's width and height.
        heat: (h, w) any resolution, at least 0; what has the largest value matters most.
    """

    boxes: Tensor | None = None
    heat: Tensor | None = None

    def checked(self) -> Objects:
        """These, without gradients.

        Raises:
            ValueError: Not exactly one of the two is there, or it has another shape.
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
        """(H, W) float32 from 0 to 1, every object grown by so many tokens on all sides."""
        heat = self._covered(grid) if self.heat is None else self._pooled(grid)
        return F.max_pool2d(heat[None, None], 2 * grow + 1, stride=1, padding=grow)[0, 0]

    def _covered(self, grid: tuple[int, int]) -> Tensor:
        """1 for the tokens that a box reaches into."""
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
    """What a stream remembers of its objects.

    Attributes:
        objects: Those that were told last; None where none ever were.
        attended: How much attention each token received in the last frame (H * W), by block.
        kept: What importances keep, each by itself.
    """

    objects: Objects | None = None
    attended: dict[int, Tensor] = field(default_factory=dict)
    kept: dict[Hashable, Any] = field(default_factory=dict)


class Importance(Protocol):
    """Says how much each token matters."""

    def of(self, matters: Matters, grid: tuple[int, int]) -> Tensor | None:
        """Asked once a frame, before the first gate.

        Args:
            matters: Of the stream; what the importance keeps goes into ``kept``.
            grid: (H, W).

        Returns:
            (H, W) from 0 to 1, or None where nothing is known yet.
        """


@dataclass(frozen=True)
class LastObjects:
    """The objects that were told last, grown.

    Attributes:
        grow: Tokens on all sides, about as far as an object gets in a frame.

    Raises:
        ValueError: It is no whole number or negative.
    """

    grow: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.grow, bool) or int(self.grow) != self.grow or self.grow < 0:
            raise ValueError(
                f"LastObjects: grow={self.grow!r} must be a whole number of tokens, at least 0."
            )

    def of(self, matters: Matters, grid: tuple[int, int]) -> Tensor | None:
        """See :class:`Importance`."""
        return None if matters.objects is None else matters.objects.on_grid(grid, self.grow)


@dataclass(frozen=True)
class ReceivedAttention:
    """The attention that a token received from all tokens in the last frame, in one block.

    It is the mean over heads and queries of the softmax, computed over the queries and keys as they
    were last let through: as many multiply-adds as the block's products of queries and keys when
    they are dense. The largest one is 1.

    Attributes:
        block: Which block; negative ones are counted from the last. It attends globally.

    Raises:
        ValueError: It is no whole number.
    """

    block: int = -1

    def __post_init__(self) -> None:
        if isinstance(self.block, bool) or int(self.block) != self.block:
            raise ValueError(
                f"ReceivedAttention: block={self.block!r} must be a whole number, such as -1."
            )

    def of(self, matters: Matters, grid: tuple[int, int]) -> Tensor | None:
        """See :class:`Importance`."""
        received = matters.attended.get(self.block)
        if received is None:
            return None
        heat = received.unflatten(0, grid)
        return heat / heat.amax().clamp_min(torch.finfo(torch.float32).tiny)


@dataclass(frozen=True)
class RunningObjects:
    """Where objects were, a running mean over the frames that were told.

    Attributes:
        keep: Share of the mean so far that is kept when a frame is told, at least 0 and below 1.

    Raises:
        ValueError: It is outside that range.
    """

    keep: float = 0.8

    def __post_init__(self) -> None:
        if not 0 <= self.keep < 1:
            raise ValueError(f"RunningObjects: keep={self.keep!r} must be at least 0 and below 1.")

    def of(self, matters: Matters, grid: tuple[int, int]) -> Tensor | None:
        """See :class:`Importance`."""
        told, mean = matters.kept.get(self, (None, None))
        if matters.objects is not told:
            now = matters.objects.on_grid(grid, grow=0)
            mean = now if mean is None else torch.lerp(now, mean, self.keep)
            matters.kept[self] = matters.objects, mean
        return mean
