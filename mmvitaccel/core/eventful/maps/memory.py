"""State of a pyramid or a head in a stream, and the gates of its input maps.

A gate stores each cell of a map as it was when it last passed. The following steps are computed
from this stored map. A head after an eventful pyramid needs no gate: it uses the pyramid's stored
maps, which know their changed pixels.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mmvitaccel.core.eventful.gates.gate import left_out, squared_norms
from mmvitaccel.core.eventful.gates.policy import Gated, Policy, choose_for_all
from mmvitaccel.core.eventful.gates.required import Required
from mmvitaccel.core.eventful.gates.selection import Selection, everything
from mmvitaccel.core.eventful.gates.token_errors import norms
from mmvitaccel.core.eventful.maps.rows import Rows
from mmvitaccel.core.eventful.maps.sheets import Sheet, Sheets
from mmvitaccel.core.eventful.maps.top_up import topped_up
from mmvitaccel.core.eventful.motion.place import Place

_NUMBERS = itertools.count()


@dataclass
class MapGate:
    """A gate for a map.

    Attributes:
        sheet: Each cell as it was when it last passed.
        squares: (B, H * W) squared norms of these cells.
        passed: The cells that passed in the last frame.
        left_out: What the gate left out of the last frame, () float32.
    """

    sheet: Sheet
    squares: Tensor
    passed: Selection
    left_out: Tensor

    @classmethod
    def start(cls, x: Tensor, border: int) -> MapGate:
        """Create a gate from the map (B, C, H, W) of a first frame."""
        cells = cells_of(x)
        nothing = cells.new_zeros((), dtype=torch.float32)
        return cls(Sheet.of(x, border), squared_norms(cells), everything(cells), nothing)

    def errors(self, x: Tensor) -> Tensor:
        """Norms (B, N) of the errors of a later frame's map (B, C, H, W)."""
        cells, seen = cells_of(x), cells_of(self.sheet.map)
        return norms(seen - cells)

    def relative(self, error: Tensor) -> Tensor:
        """Errors relative to the root mean square of the cells' norms."""
        scale = self.squares.mean(1, keepdim=True).sqrt()
        return error / scale.clamp_min(torch.finfo(scale.dtype).tiny)

    def move(self, step: tuple[int, int]) -> None:
        """Follow a movement of the view by ``step`` rows and columns."""
        self.sheet.move(step)
        if step != (0, 0):
            grid = self.squares.unflatten(1, self.sheet.size)
            self.squares = grid.roll((-step[0], -step[1]), (1, 2)).flatten(1)

    def policy(self, base: Policy) -> Policy:
        """The policy ``base``, with the cells that are new in the view."""
        if self.sheet.moved == (0, 0):
            return base
        return Required(base, self.sheet.entered().flatten(), self.sheet.count_entered())

    def take(self, x: Tensor, error: Tensor, passed: Selection) -> None:
        """Store the cells of a later frame's map that pass.

        Args:
            x: The map (B, C, H, W).
            error: Errors (B, N) of its cells.
            passed: The cells that pass.
        """
        cells, self.passed = cells_of(x), passed
        self.left_out = left_out(self.passed, error, self.squares)
        values = self.passed.gather(cells)
        self.passed.put(self.squares.unsqueeze(-1), squared_norms(values).unsqueeze(-1))
        entry = torch.arange(len(cells), device=x.device)[:, None] * cells.shape[1]
        chosen = None if self.passed.chosen is None else self.passed.chosen.flatten()
        rows = Rows((self.passed.index + entry).flatten(), chosen)
        self.sheet.put(rows, values.flatten(0, 1))
        changed = self.passed.mask().unflatten(1, x.shape[2:])
        self.sheet.become(changed, self.passed.index.shape[1])


@dataclass
class Pages:
    """The maps of a stream's current frame, in their memory.

    Attributes:
        memory: Unique number of the memory.
        frame: Number of the frame in it.
        sheets: The maps, fine to coarse.
    """

    memory: int
    frame: int
    sheets: list[Sheet]


@dataclass
class MapMemory:
    """State of a pyramid or a head in a stream.

    Attributes:
        gates: Gates of the input maps by position; empty if it follows another memory.
        sheets: Computed maps by name.
        number: Unique number of the memory.
        frame: Number of frames so far.
        followed: Memory and frame of the last :class:`Pages`.
        place: Position of the view of the last frame; None without motion.
    """

    gates: list[MapGate] = field(default_factory=list)
    sheets: Sheets = field(default_factory=Sheets)
    number: int = field(default_factory=lambda: next(_NUMBERS))
    frame: int = 0
    followed: tuple[int, int] | None = None
    place: Place | None = None

    def move(self, place: Place, whole: bool) -> None:
        """Follow the view before a frame; a new scene resets the memory.

        Args:
            place: Position of the view.
            whole: Whether the frame is computed completely in any case.
        """
        before, self.place = self.place, place
        for sheet in (*(gate.sheet for gate in self.gates), *self.sheets.values()):
            sheet.moved = (0, 0)
        if before is None or whole:
            return
        step = place.step_from(before)
        own = [gate.sheet.step_of(step, place.grid) for gate in self.gates]
        if place.scene != before.scene or None in own:
            self._forget()
        elif step != (0, 0):
            for gate, by in zip(self.gates, own):
                gate.move(by)
            self.sheets.move(step, place.grid)

    def take(self, maps: Sequence[Tensor], policy: Policy, border: int) -> list[Sheet]:
        """Pass the maps (B, C, H, W) of a frame through the gates.

        With several maps, a policy gets errors relative to the norms of each map's cells.

        Args:
            maps: Maps from fine to coarse; those of a first frame pass completely.
            policy: Selects the cells of each map.
            border: Border of the sheets.
        """
        return take_together([self], [maps], [policy], border)[0]

    def goes_on(self, maps: Sequence[Tensor], border: int) -> bool:
        """Begin a frame. Returns False for a first frame, whose maps pass completely."""
        self._begin()
        if self.followed is None and len(self.gates) == len(maps):
            return True
        self._forget()
        self.gates = [MapGate.start(x, border) for x in maps]
        return False

    def follow(self, pages: Pages) -> list[Sheet]:
        """Use the maps of a frame in another memory; all are new if a frame of it was missed."""
        self._begin()
        goes_on = self.followed == (pages.memory, pages.frame - 1)
        if not goes_on:
            self._forget()
        self.followed = (pages.memory, pages.frame)
        return pages.sheets

    def _begin(self) -> None:
        self.frame += 1

    def _forget(self) -> None:
        self.gates, self.followed = [], None
        self.sheets.clear()

    def pages(self, sheets: list[Sheet]) -> Pages:
        """The current frame's maps, for a memory that follows this one."""
        return Pages(self.number, self.frame, sheets)

    @property
    def computed(self) -> Tensor | None:
        """The share of the maps' values that is new in this frame, () float32; None for all."""
        sheets = list(self.sheets.values())
        if not sheets or any(sheet.changed is None for sheet in sheets):
            return None
        new = torch.stack([sheet.changed.sum() * sheet.channels for sheet in sheets]).sum()
        return new / sum(sheet.changed.numel() * sheet.channels for sheet in sheets)

    @property
    def passed(self) -> tuple[Selection, ...]:
        """The cells of all maps that passed, concatenated over the maps."""
        if not self.gates:
            return ()
        first = 0
        index, chosen = [], []
        for gate in self.gates:
            index.append(gate.passed.index + first)
            ones = torch.ones_like(gate.passed.index, dtype=torch.bool)
            chosen.append(ones if gate.passed.chosen is None else gate.passed.chosen)
            first += gate.passed.num_tokens
        if all(gate.passed.chosen is None for gate in self.gates):
            return (Selection(torch.cat(index, 1), first),)
        return (Selection(torch.cat(index, 1), first, torch.cat(chosen, 1)),)

    @property
    def left_out(self) -> tuple[Tensor, ...]:
        """What the gates left out, averaged over the maps, () float32."""
        if not self.gates:
            return ()
        return (torch.stack([gate.left_out for gate in self.gates]).mean(),)


def take_together(
    memories: Sequence[MapMemory],
    maps: Sequence[Sequence[Tensor]],
    policies: Sequence[Policy],
    border: int,
    tops_up: bool = False,
) -> list[list[Sheet]]:
    """Call :meth:`MapMemory.take` for a frame of each of several streams.

    Args:
        memories: Memories of the streams.
        maps: Maps of each stream from fine to coarse, with equal shapes.
        policies: Policies of the streams; a shared policy gets the errors of all.
        border: Border of the sheets.
        tops_up: Whether cells that have clearly changed pass beyond a policy's budget.
    """
    later = [
        (memory, given, policy)
        for memory, given, policy in zip(memories, maps, policies)
        if memory.goes_on(given, border)
    ]
    for place in range(len(maps[0]) if later else 0):
        gates = [(memory.gates[place], given[place]) for memory, given, _ in later]
        errors = [gate.errors(x) for gate, x in gates]
        relative = len(maps[0]) > 1
        asked = [
            Gated(gate.policy(policy), gate.relative(error) if relative else error)
            for (gate, _), error, (_, _, policy) in zip(gates, errors, later)
        ]
        chosen = choose_for_all(asked)
        for (gate, x), error, passed, (_, _, policy) in zip(gates, errors, chosen, later):
            if tops_up:
                passed = topped_up(passed, gate.relative(error), policy)
            gate.take(x, error, passed)
    return [[gate.sheet for gate in memory.gates] for memory in memories]


def cells_of(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H * W, C), with a row per cell; a view in both memory formats."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)
