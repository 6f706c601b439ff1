"""Steps that update a stored map where its source changed.

A pyramid or a head over maps is a chain of such steps. Each determines the pixels of its result
that depend on changed pixels, and recomputes them. All others keep their values bit for bit, even
if so many changed that the complete map is computed.

- :func:`spread` expands each cell, or each small square of cells, into pixels independently;
- :func:`mix` convolves 3 x 3 around pixels;
- :func:`subsample` takes every second pixel.

Shapes: B batch; H, W of the source, h, w of the result, C and D channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from mmvitaccel.core.eventful.gates.host_reads import reading_is_free
from mmvitaccel.core.eventful.maps.held import GroupNorm, Held
from mmvitaccel.core.eventful.maps.rows import (
    Rows,
    corners,
    grown,
    offsets,
    rows_where,
    squares_with_any,
)
from mmvitaccel.core.eventful.maps.sheets import Sheet, Sheets
from mmvitaccel.core.kernels.half_linear import half_product

# A multiply-add takes longer in gathered rows than in the complete map; above this share,
# the complete map is faster. In the head of benchmarks/results/detector-changes.json
# (`python benchmarks/detector.py ... --changes rectangle rectangles`), the ratio of its shares of
# dense time and of dense multiply-adds is about 1.4, whose inverse is about 0.7. It varies with the
# map and the machine: the RPN of detector-1024.json has 1.1 at k=512 and 1.6 at k=256.
_WHOLE_SHARE = 0.75
# Number of 3 x 3 neighbourhoods gathered at a time: on a CPU they fit into the cache (9 x 256
# values each in a ViTDet); on other devices this limits the memory.
_PIXELS_CPU, _PIXELS = 512, 16384


@dataclass(frozen=True)
class Spread:
    """A step that computes squares of cells independently.

    Attributes:
        compute: (B, C, H, W) -> (B, D, h, w), for each square of cells independently.
        cells: Side of a square in cells; incomplete squares at the right and bottom are not used.
        pixels: Side of a square's result in pixels.
        border: Border of the result, see :class:`Sheet`.
    """

    compute: Callable[[Tensor], Tensor]
    cells: int = 1
    pixels: int = 1
    border: int = 1


@dataclass(frozen=True)
class Mix:
    """A 3 x 3 convolution with one pixel of padding, followed by pixel-wise layers.

    Attributes:
        weight: (O, D, 3, 3).
        bias: (O,) or None.
        finish: Pixel-wise layers, (B, O, h, w) -> (B, P, h, w).
        stride: 1 or 2.
        border: Border of the result, see :class:`Sheet`.
        is_between: Whether only another convolution of the same chain reads the result.
        norm: A GroupNorm between the convolution and ``finish``, with statistics of the last
            completely computed frame.
    """

    weight: Tensor
    bias: Tensor | None
    finish: Callable[[Tensor], Tensor]
    stride: int = 1
    border: int = 1
    is_between: bool = False
    norm: GroupNorm | None = None

    @cached_property
    def matrix(self) -> Tensor:
        """Weights (O, 9 * D) for neighbourhoods as rows."""
        return self.weight.permute(0, 2, 3, 1).flatten(1)

    def anew(self, source: Sheet) -> tuple[Tensor, Held | None]:
        """The complete result (B, P, h, w) of a complete frame, and the norm's statistics."""
        mixed, held = self._mixed(source), None
        if self.norm is not None:
            mixed, held = self.norm.normalize(mixed)
        return self.finish(mixed), held

    def whole(self, source: Sheet, held: Held | None = None) -> Tensor:
        """The complete result (B, P, h, w) with given statistics."""
        mixed = self._mixed(source)
        return self.finish(mixed if held is None else held.on_map(mixed))

    def around(self, near: Tensor, held: Held | None, entry: Tensor) -> Tensor:
        """Results at the centres of neighbourhoods.

        Args:
            near: Neighbourhoods (M, 9 * D).
            held: Statistics of the norm.
            entry: (M,), the batch entry of each.

        Returns:
            (M, P).
        """
        mixed = half_product(near, self.matrix, self.bias)
        if mixed is None:
            mixed = F.linear(near, self.matrix, self.bias)
        if held is not None:
            mixed = held.on_rows(mixed, entry)
        return _by_rows(self.finish, mixed)

    def _mixed(self, source: Sheet) -> Tensor:
        return F.conv2d(_first(source.read(source.padded)), self.weight, self.bias, self.stride)


@dataclass(frozen=True)
class Above:
    """A coarser map that is upsampled and added to a finer one.

    Attributes:
        sheet: The coarser map.
        enlarge: (B, 1, H, W) -> (B, 1, h, w), nearest pixels.
    """

    sheet: Sheet
    enlarge: Callable[[Tensor], Tensor]

    def add_to(self, x: Tensor) -> Tensor:
        """Add the upsampled map to (B, D, h, w)."""
        return x + self.enlarge(self.sheet.map)

    def change(self) -> Tensor | None:
        """The pixels of the finer map that it changes, (B, h, w) bool."""
        if self.sheet.changed is None:
            return None
        return self.enlarge(self.sheet.changed.float()[:, None])[:, 0] > 0

    def rows_at(self, rows: Tensor) -> Tensor:
        """Values (M, D) added to pixels, given as rows (M,) of the finer map."""
        height, width = self.sheet.size
        cells = torch.arange(len(self.sheet.padded) * height * width, device=rows.device)
        # Cell numbers are exact in double precision
        number = cells.view(-1, 1, height, width).double()
        below = self.enlarge(number).flatten().index_select(0, rows).long()
        return self.sheet.rows.index_select(0, self.sheet.places(below))


def spread(
    sheets: Sheets, key: str, source: Sheet, step: Spread, above: Above | None = None
) -> Sheet:
    """Update ``sheets[key]`` by a :class:`Spread` of ``source``, or create it.

    Args:
        sheets: Stored maps.
        key: Name of the result.
        source: The source map.
        step: The step.
        above: Map added to the result; only for squares of a single cell.
    """
    sheet, raised = sheets.get(key), None if above is None else above.change()
    if sheet is None or source.changed is None or (above is not None and raised is None):
        sheets[key] = _replaced(sheet, _spread_all(source, step, above), step.border)
        return sheets[key]
    squares = squares_with_any(source.changed, step.cells)
    if raised is not None:
        squares = squares | raised
    at_most = source.at_most
    if above is not None:
        at_most += above.sheet.at_most * _ratio(above.sheet.size, sheet.size)
    rows = rows_where(squares, at_most)
    fine = squares.repeat_interleave(step.pixels, 1).repeat_interleave(step.pixels, 2)
    sheet.become(fine, at_most * step.pixels**2)
    if not len(rows.index):
        return sheet
    if len(rows.index) > _WHOLE_SHARE * squares.numel():
        sheet.put_all(_last(_spread_all(source, step, above)), rows)
    elif step.cells == step.pixels == 1:
        made = source.rows.index_select(0, source.places(rows.index))
        made = _by_rows(step.compute, made)
        sheet.put(rows, made if above is None else made + above.rows_at(rows.index))
    else:
        _spread_squares(source, step, rows, sheet)
    return sheet


def mix(sheets: Sheets, steps: Mapping[str, Mix], source: Sheet) -> list[Sheet]:
    """Update sheets by convolutions of one source, or create them.

    Args:
        sheets: Stored maps.
        steps: Convolutions by the names of their results, all with the same stride.
        source: The source map, with a border.
    """
    renewed = sheets.anew and any(step.norm is not None for step in steps.values())
    if source.changed is None or renewed or any(key not in sheets for key in steps):
        for key, step in steps.items():
            kept_as = sheets.between if step.is_between else None
            made, held = step.anew(source)
            sheets[key] = _replaced(sheets.get(key), made, step.border, kept_as)
            sheets[key].held = held
        return [sheets[key] for key in steps]
    stride = next(iter(steps.values())).stride
    near, at_most = grown(source.changed, stride), source.at_most * 9
    first = sheets[next(iter(steps))]
    if first.moved != (0, 0):
        # At the new edge of the view, zeros are read instead of pixels
        near = near | first.beside_edges()
        at_most += sum(first.size)
    rows = rows_where(near, at_most)
    for key in steps:
        sheets[key].become(near, at_most)
    if not len(rows.index):
        pass
    elif len(rows.index) > _WHOLE_SHARE * near.numel():
        for key, step in steps.items():
            sheets[key].put_all(_last(step.whole(source, sheets[key].held)), rows)
    else:
        _mix_rows(sheets, steps, source, rows, stride)
    return [sheets[key] for key in steps]


def subsample(sheets: Sheets, key: str, source: Sheet) -> Sheet:
    """Every second pixel on both axes, starting with the first."""
    sheet, small = sheets.get(key), source.pixels[:, ::2, ::2]
    if sheet is None or source.changed is None:
        sheets[key] = _replaced(sheet, _first(small), 1)
    else:
        sheet.become(source.changed[:, ::2, ::2], source.at_most)
        sheet.pixels.copy_(small)
    return sheets[key]


def _replaced(
    sheet: Sheet | None, x: Tensor, border: int, kept_as: torch.dtype | None = None
) -> Sheet:
    """A sheet in which all is new, reusing the memory if possible."""
    computed_in = x.dtype
    x = x if kept_as is None else x.to(kept_as)
    shape = (len(x), x.shape[2] + 2 * border, x.shape[3] + 2 * border, x.shape[1])
    if sheet is None or sheet.padded.shape != shape or sheet.padded.dtype != x.dtype:
        sheet = Sheet.of(x, border)
        sheet.read_as = None if x.dtype == computed_in else computed_in
        return sheet
    sheet.become(None, 0)
    sheet.pixels.copy_(_last(x))
    return sheet


def _spread_all(source: Sheet, step: Spread, above: Above | None) -> Tensor:
    """(B, D, h, w)."""
    whole = step.compute(source.map)
    return whole if above is None else above.add_to(whole)


def _spread_squares(source: Sheet, step: Spread, rows: Rows, sheet: Sheet) -> None:
    """Compute some squares of cells, arranged side by side as a map."""
    cells, pixels = step.cells, step.pixels
    at = source.places(rows.index, cells)
    at = (at[:, None, None] + offsets(cells, source.padded)).movedim(0, 1)  # (cells, M, cells)
    strip = source.rows.index_select(0, at.flatten()).view(1, cells, -1, source.padded.shape[3])
    made = _last(step.compute(_first(strip))).reshape(-1, sheet.padded.shape[3])
    to = sheet.places(rows.index, pixels)
    to = (to[:, None, None] + offsets(pixels, sheet.padded)).movedim(0, 1).flatten()
    kept = rows.repeated(pixels).keep(made, sheet.rows, to)
    sheet.rows.index_copy_(0, to, kept)


def _mix_rows(
    sheets: Sheets, steps: Mapping[str, Mix], source: Sheet, rows: Rows, stride: int
) -> None:
    """Convolve at some pixels: gathered neighbourhoods times the weights."""
    grid = sheets[next(iter(steps))].size
    # A neighbourhood's corner in the padded source has the pixel's position in the source
    taps = corners(rows.index, grid, stride, source.padded)[:, None]
    taps = taps + offsets(3, source.padded).flatten()
    chunk = _PIXELS_CPU if reading_is_free(taps.device) else _PIXELS
    for part, tap in zip(rows.split(chunk), taps.split(chunk)):
        near = source.read(source.rows.index_select(0, tap.flatten())).view(len(tap), -1)
        entry = part.index.div(grid[0] * grid[1], rounding_mode="floor")
        for key, step in steps.items():
            sheets[key].put(part, step.around(near, sheets[key].held, entry))


def _by_rows(compute: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """Apply a pixel-wise function of maps to pixels, (M, C) -> (M, D)."""
    made = _last(compute(_first(rows[None, None])))
    return made.reshape(len(rows), -1)


def _ratio(coarse: tuple[int, int], fine: tuple[int, int]) -> int:
    """Largest number of pixels of a finer map per pixel of a coarser map."""
    return -(-fine[0] // coarse[0]) * -(-fine[1] // coarse[1])


def _last(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H, W, C)."""
    return x.permute(0, 2, 3, 1)


def _first(x: Tensor) -> Tensor:
    """(B, H, W, C) -> (B, C, H, W)."""
    return x.permute(0, 3, 1, 2)
