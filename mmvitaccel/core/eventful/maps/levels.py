"""Levels of a feature pyramid, recomputed only where the map below them changed.

A level is made in two steps. First each cell of the map, or each small square of cells, is
expanded into pixels independently; then a 3 x 3 convolution mixes neighbouring pixels. The results
of both steps are remembered. In a later frame, the cells that a gate lets through are expanded
again, and exactly the pixels next to them are mixed again; a tile with its halo would contain many
pixels that did not change. The result is the level of the map as the gate let it through.

Shapes: B batch; H, W cells of the map, C channels; h, w pixels of a level, D channels before the
convolution and O behind it. What is remembered has its channels last, so that a pixel is a row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mmvitaccel.core.eventful.gates.gate import left_out, squared_norms
from mmvitaccel.core.eventful.gates.host_reads import reading_is_free
from mmvitaccel.core.eventful.gates.policy import Policy, choose
from mmvitaccel.core.eventful.gates.selection import Selection, everything
from mmvitaccel.core.eventful.maps.rows import (
    corners,
    offsets,
    reached,
    rows_where,
    squares_with_any,
)

# reason: a multiply-add takes as long in gathered rows as in the whole map (measured on a CPU);
# above this share of the rows, gathering them is all that is left of it.
_WHOLE_SHARE = 0.9
# Pixels whose 3 x 3 neighbourhoods are gathered at a time: on a CPU, so many that they stay in its
# cache (9 x 256 numbers each in a ViTDet); elsewhere bounded for memory's sake.
_PIXELS_CPU, _PIXELS = 512, 16384


@dataclass(frozen=True)
class LevelSteps:
    """The steps of one level.

    Attributes:
        spread: (B, C, H, W) -> (B, D, h, w), each square of cells independently.
        weight: Of the convolution, (O, D, 3, 3).
        bias: Of the convolution, (O,) or None.
        finish: (B, O, h, w) -> (B, O, h, w), each pixel independently.
        cells: Cells a side of a square; those at the right and bottom that fill none are unused.
        pixels: Pixels a side of what becomes of a square.
    """

    spread: Callable[[Tensor], Tensor]
    weight: Tensor
    bias: Tensor | None
    finish: Callable[[Tensor], Tensor]
    cells: int = 1
    pixels: int = 1


@dataclass
class LevelMemory:
    """What a stream remembers of one level.

    Attributes:
        spread: (B, h + 2, w + 2, D), with a border of zeros as the convolution wants it.
        out: (B, h, w, O).
    """

    spread: Tensor
    out: Tensor


class Change(NamedTuple):
    """What became of the map in one frame.

    Attributes:
        seen: (B, H, W, C) the map as the gate let it through.
        changed: (B, H, W) bool, the cells that passed now.
        at_most: A number, known to the host, that no frame's changed cells exceed.
    """

    seen: Tensor
    changed: Tensor
    at_most: int


@dataclass
class MapMemory:
    """What a stream remembers of a map and its levels.

    Attributes:
        seen: (B, H * W, C) each cell as it was when last let through.
        squares: (B, H * W) the squared norms of these.
        passed: The cells that passed in the last frame.
        left_out: What the gate left out of it, () float32.
        change: What they made of the map; None in a first frame.
        levels: By number.
    """

    seen: Tensor
    squares: Tensor
    passed: tuple[Selection]
    left_out: tuple[Tensor]
    change: Change | None
    levels: dict[int, LevelMemory]

    @classmethod
    def start(cls, x: Tensor) -> MapMemory:
        """Remember the map (B, C, H, W) of a first frame."""
        # reason: a copy, since the map is the caller's and this changes.
        cells = _cells(x).clone()
        squares, nothing = squared_norms(cells), cells.new_zeros((), dtype=torch.float32)
        return cls(cells, squares, (everything(cells),), (nothing,), None, {})

    def take(self, x: Tensor, policy: Policy) -> None:
        """Let cells of a later frame's map (B, C, H, W) through."""
        cells, grid = _cells(x), x.shape[2:]
        error = torch.linalg.vector_norm(self.seen - cells, dim=-1, dtype=torch.float32)
        selection = choose(policy, error)
        self.left_out = (left_out(selection, error, self.squares),)
        passed = selection.gather(cells)
        selection.put(self.seen, passed)
        selection.put(self.squares.unsqueeze(-1), squared_norms(passed).unsqueeze(-1))
        self.passed = (selection,)
        self.change = Change(
            seen=self.seen.unflatten(1, grid),
            changed=selection.mask().unflatten(1, grid),
            at_most=selection.index.shape[1],
        )

    def level(self, index: int, steps: LevelSteps, x: Tensor) -> Tensor:
        """A level of the frame whose map is ``x``: (B, h, w, O), which belongs to the memory."""
        if self.change is None:
            self.levels[index] = start_level(steps, x)
        else:
            step_level(steps, self.change, self.levels[index])
        return self.levels[index].out


def start_level(steps: LevelSteps, x: Tensor) -> LevelMemory:
    """A level of the map (B, C, H, W), whole."""
    spread = F.pad(_last(steps.spread(x)), (0, 0, 1, 1, 1, 1)).contiguous()
    return LevelMemory(spread, _mix_all(steps, spread))


def step_level(steps: LevelSteps, change: Change, memory: LevelMemory) -> None:
    """Bring a level up to date, in place."""
    squares = squares_with_any(change.changed, steps.cells)
    rows = rows_where(squares, change.at_most)
    if not len(rows):
        return
    if len(rows) > _WHOLE_SHARE * squares.numel():
        memory.spread[:, 1:-1, 1:-1] = _last(steps.spread(_first(change.seen)))
    else:
        _spread_rows(steps, change.seen, rows, memory.spread)
    near = reached(squares, steps.pixels)
    rows = rows_where(near, change.at_most * (steps.pixels + 2) ** 2)
    if len(rows) > _WHOLE_SHARE * near.numel():
        memory.out.copy_(_mix_all(steps, memory.spread))
    else:
        _mix_rows(steps, memory.spread, rows, memory.out)


def _spread_rows(steps: LevelSteps, seen: Tensor, rows: Tensor, spread: Tensor) -> None:
    """Spread some squares of cells: laid side by side, they are a map themselves."""
    cells, pixels = steps.cells, steps.pixels
    height, width = (side // cells for side in seen.shape[1:3])
    at = corners(rows, (height, width), cells, seen)
    at = (at[:, None, None] + offsets(cells, seen)).movedim(0, 1)  # (cells, M, cells)
    strip = seen.flatten(0, 2).index_select(0, at.flatten()).view(1, cells, -1, seen.shape[3])
    made = _last(steps.spread(_first(strip))).flatten(0, 2)  # (pixels * M * pixels, D)
    to = corners(rows, (height, width), pixels, spread) + spread.shape[2] + 1
    to = (to[:, None, None] + offsets(pixels, spread)).movedim(0, 1)
    spread.view(-1, made.shape[1]).index_copy_(0, to.flatten(), made)


def _mix_rows(steps: LevelSteps, spread: Tensor, rows: Tensor, out: Tensor) -> None:
    """Convolve around some pixels: their neighbourhoods, gathered, times the weights."""
    weight = steps.weight.permute(0, 2, 3, 1).flatten(1)  # (O, 9 * D)
    source, target = spread.view(-1, spread.shape[3]), out.view(-1, out.shape[3])
    taps = corners(rows, out.shape[1:3], 1, spread)[:, None] + offsets(3, spread).flatten()
    size = _PIXELS_CPU if reading_is_free(rows.device) else _PIXELS
    for row, tap in zip(rows.split(size), taps.split(size)):
        near = source.index_select(0, tap.flatten()).view(len(row), -1)
        mixed = F.linear(near, weight, steps.bias)[None, None]  # (1, 1, M, O)
        target.index_copy_(0, row, _last(steps.finish(_first(mixed)))[0, 0])


def _mix_all(steps: LevelSteps, spread: Tensor) -> Tensor:
    """(B, h + 2, w + 2, D) -> (B, h, w, O)."""
    return _last(steps.finish(F.conv2d(_first(spread), steps.weight, steps.bias))).contiguous()


def _cells(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H * W, C), each cell a row."""
    return _last(x).flatten(1, 2).contiguous()


def _last(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H, W, C)."""
    return x.permute(0, 2, 3, 1)


def _first(x: Tensor) -> Tensor:
    """(B, H, W, C) -> (B, C, H, W)."""
    return x.permute(0, 3, 1, 2)
