"""Merging of neighbours, the same number in each line, so that tokens stay on a grid."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from mmvitaccel.arguments import refuse, whole_numbers
from mmvitaccel.core.tome.matcher import Candidates
from mmvitaccel.core.tome.merge import Matching, comparable, places_of, ranked


class Grid:
    """Merges neighbours in rows or columns, the same number in each, so that a grid remains.

    After CubistMerge (arXiv 2509.21764), which merges only neighbours and keeps a grid. Here,
    tokens merge within lines along the longer side. The tokens at even positions select the more
    similar of their two neighbours, and the best pairs merge; tokens are averaged as in ToMe. r is
    rounded to a whole number per line: on a 14 x 14 grid, 14, 28, ... tokens merge, and none for r
    below 7.

    Args:
        grid_size: (H, W), or (T, H, W), of the tokens after the prefix at the first block, for
            hosts that do not provide it.

    Raises:
        ValueError: ``grid_size`` is not two or three whole numbers of at least 1.
    """

    def __init__(self, grid_size: tuple[int, ...] | None = None) -> None:
        why = "give (H, W), (T, H, W) or None"
        if grid_size is not None:
            grid_size = whole_numbers("Grid", "grid_size", grid_size, least=1, why=why)
            if len(grid_size) not in (2, 3):
                refuse("Grid", "grid_size", grid_size, "two or three numbers", why=why)
        self.grid_size = grid_size

    def match(self, given: Candidates) -> Matching | None:
        """The best pairs of neighbours of each line.

        Raises:
            ValueError: The grid is unknown or does not match the tokens.
        """
        metric, p = comparable(given.metric), given.num_prefix_tokens
        (batch, num_tokens, _), grid = metric.shape, self._grid_of(given)
        frames, (height, width) = prod(grid[:-2]), grid[-2:]
        down = height > width  # lines are columns
        at = torch.arange(p, num_tokens, device=metric.device).view(frames, height, width)
        at = (at.transpose(1, 2) if down else at).flatten(0, 1)  # (G, L): positions, by line
        lines, length = at.shape
        count = min((2 * given.r + lines) // (2 * lines), length // 2)
        if count == 0:
            return None
        at = at.expand(batch, -1, -1).flatten(0, 1)  # (B * G, L)
        src, target = _best_pairs(metric[:, at[:lines]].flatten(0, 1), count)
        gone = torch.zeros_like(at).scatter_(1, src, 1)
        stay = at.gather(1, gone.argsort(dim=1, stable=True)[:, : length - count])
        stay = stay.view(batch, frames, -1, length - count)
        stay = stay.transpose(2, 3) if down else stay
        prefix = torch.arange(p, device=at.device).expand(batch, p)
        kept = torch.cat([prefix, stay.flatten(1)], dim=1)
        src, target = (at.gather(1, t).view(batch, -1) for t in (src, target))
        left = (height - count, width) if down else (height, width - count)
        dst = places_of(kept, num_tokens).gather(1, target)
        return Matching(kept, src, dst, grid_size=(*grid[:-2], *left))

    def _grid_of(self, given: Candidates) -> tuple[int, ...]:
        grid = self.grid_size if given.grid_size is None else given.grid_size
        if grid is None:
            raise ValueError(
                "Grid: this host does not provide its token grid; give the grid at the first "
                "block, matching=dict(type='Grid', grid_size=(H, W))."
            )
        free = given.metric.shape[1] - given.num_prefix_tokens
        if prod(grid) != free or len(grid) < 2:
            raise ValueError(
                f"Grid: grid_size={tuple(grid)} has {prod(grid)} positions, but there are {free} "
                f"tokens after {given.num_prefix_tokens} prefix tokens; give the grid of this "
                f"input."
            )
        return tuple(grid)

    def __repr__(self) -> str:
        return f"Grid(grid_size={self.grid_size})"


def _best_pairs(lines: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Columns to merge in each line (G, L, D), and the neighbour of each, both (G, count)."""
    a, b = lines[:, 0::2], lines[:, 1::2]
    scores = lines.new_full((2, *a.shape[:2]), float("-inf"))
    scores[0, :, 1:] = (a[:, 1:] * b[:, : a.shape[1] - 1]).sum(-1)  # the previous neighbour
    scores[1, :, : b.shape[1]] = (a[:, : b.shape[1]] * b).sum(-1)  # the next neighbour
    best, behind = scores.max(dim=0)
    src = 2 * ranked(best)[:, :count]
    return src, src - 1 + 2 * behind.gather(1, src // 2)
