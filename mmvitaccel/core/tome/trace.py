"""What one forward pass of a model with ToMe knows about its tokens, block by block.

A pass may be recomputed block by block in its backward (activation checkpointing), after other
passes have run, so what a block has to know is kept per pass and per block and never consumed.
Threads run passes at the same time: the running pass is the thread's own.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from mmvitaccel.core.tome.merge import Matching, log_size, owner, take
from mmvitaccel.core.tome.schedule import Entry
from mmvitaccel.core.torch_modes import is_compiling

# reason: passes that wait for their backward at once: siamese networks, accumulated losses
_PASSES_KEPT = 16


class Standing(NamedTuple):
    """The state of the tokens between two blocks.

    Attributes:
        size: Patches in each token (B, N, 1), float32.
        position: Where each token was at first (B, N), or None while nothing has merged.
        owner: Which token each first token is in now (B, N0), or None while nothing has merged.
        has_empty: Whether some places may hold no token: their size is 0.
        grid_size: Of the tokens behind the prefix, where they form a grid and it is known.
    """

    size: Tensor
    position: Tensor | None = None
    owner: Tensor | None = None
    has_empty: bool = False
    grid_size: tuple[int, ...] | None = None

    def merged(self, matching: Matching, size: Tensor) -> Standing:
        """The state after a merge."""
        now, position = owner(matching), matching.kept
        if self.position is not None:
            now, position = now.gather(1, self.owner), self.position.gather(1, position)
        has_empty = self.has_empty or matching.live is not None
        return Standing(size, position, now, has_empty, matching.grid_size)

    def key_mask(self, proportional: bool) -> Tensor | None:
        """What is added to attention logits (B, 1, 1, N), float32; None where nothing is.

        With proportional attention each key weighs as much as its patches (eq. 1); a place that
        holds no token weighs nothing in any case.
        """
        if self.position is None:  # reason: fused attention is faster without a mask
            return None
        if proportional:
            return log_size(self.size)
        return log_size(self.size > 0) if self.has_empty else None

    def owners(self) -> Tensor:
        """``owner``, also while nothing has merged."""
        if self.owner is not None:
            return self.owner
        batch, num_tokens, _ = self.size.shape
        return torch.arange(num_tokens, device=self.size.device).expand(batch, num_tokens)

    def all_tokens(self, x: Tensor) -> Tensor:
        """Unmerge: (B, N, C) to (B, N0, C)."""
        return x if self.owner is None else take(x, self.owner)

    def present_tokens(self, x: Tensor) -> Tensor:
        """Undo :meth:`all_tokens`; tokens that are not unmerged pass through."""
        if self.position is None or x.shape[1] == self.position.shape[1]:
            return x
        return take(x, self.position)


class Trace:
    """One pass: the schedule that it runs with and how its tokens stand behind each block."""

    def __init__(self, schedule: tuple[Entry, ...], full_at: Iterable[int]) -> None:
        self.schedule = schedule
        self.full_at = frozenset(full_at)
        self.behind: dict[int, Standing] = {}
        self.matchings: dict[int, Matching | None] = {}  # of blocks that give all tokens back

    def enter(self, index: int, x: Tensor, grid_size: tuple[int, ...] | None = None) -> Standing:
        """How the tokens x (B, N, C), first on a grid if that is known, stand before a block."""
        if index - 1 in self.behind:
            return self.behind[index - 1]
        size = x.new_ones((*x.shape[:2], 1), dtype=torch.float32)
        return Standing(size, grid_size=grid_size)


class _Passes(threading.local):
    """A thread's passes: the running one, the last one, and one that is resumed in a backward."""

    # reason: of each instance, for torch.compile guards on what one has
    def __init__(self) -> None:
        self.active: Trace | None = None
        self.last: Trace | None = None
        self.resumed: tuple[int, int, Trace] | None = None


class Traces:
    """The running pass, the last one, and those whose backward may still come."""

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._own = _Passes()
        self._latest: Trace | None = None
        self._waiting: OrderedDict[tuple[int, int], Trace] = OrderedDict()

    def __deepcopy__(self, memo: dict[int, object]) -> Traces:
        return Traces(self.num_blocks)

    @property
    def active(self) -> Trace | None:
        """The pass that runs in this thread."""
        return self._own.active

    @property
    def last(self) -> Trace | None:
        """This thread's last pass; of a thread that had none, the latest of any."""
        return self._latest if self._own.last is None else self._own.last

    def start(self, trace: Trace) -> Trace | None:
        """Let a pass run in this thread; returns the one, if any, that it interrupts."""
        # reason: no context manager, which torch.compile of torch 2.1 does not see through
        before, self._own.active = self._own.active, trace
        return before

    def stop(self, trace: Trace, before: Trace | None) -> None:
        """End the pass and go on with the one that :meth:`start` returned."""
        self._own.active = before
        self._own.last = self._latest = trace

    def at(self, index: int, x: Tensor) -> Trace | None:
        """The pass that this call of block ``index`` on ``x`` belongs to.

        Outside of the model's forward, a block runs within a backward to be recomputed, and its
        input is then the very memory that the pass had saved; or somebody calls it alone, and it
        belongs to none.
        """
        if self.active is not None:
            return self.active
        # reason: memory is used again, so that outside of a backward an address means nothing
        if is_compiling() or torch._C._current_graph_task_id() == -1:
            return None
        key = (index, x.data_ptr())
        resumed = self._own.resumed
        if resumed is not None and resumed[:2] == key:
            return resumed[2]
        return self._waiting.get(key)

    def remember(self, index: int, x: Tensor, out: Tensor, trace: Trace) -> None:
        """Make block ``index`` of this pass findable for its recomputation."""
        if is_compiling():
            return
        if self.active is None:
            # reason: a checkpoint over several blocks saved the input of the first one only
            self._own.resumed = (index + 1, out.data_ptr(), trace)
        elif torch.is_grad_enabled() or x.requires_grad:
            key = (index, x.data_ptr())
            self._waiting.pop(key, None)
            self._waiting[key] = trace
            if len(self._waiting) > _PASSES_KEPT * self.num_blocks * threading.active_count():
                self._waiting.popitem(last=False)
