"""State of the tokens in the forward passes of a model with ToMe, for each block.

Activation checkpointing recomputes blocks of a pass in the backward, after other passes may have
run. The state is therefore kept per pass and per block, and reading it does not remove it. Threads
can run passes at the same time: each thread has its own running pass.
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
from mmvitaccel.core.torch_modes import is_compiling, is_transforming

# Passes whose backward is pending at the same time: siamese networks, accumulated losses.
_PASSES_KEPT = 16


class Standing(NamedTuple):
    """The state of the tokens between two blocks.

    Attributes:
        size: Patches in each token (B, N, 1), float32.
        position: Original position of each token (B, N), or None if nothing has merged yet.
        owner: Current token of each original token (B, N0), or None if nothing has merged yet.
        has_empty: Whether there may be empty positions, whose size is 0.
        grid_size: (H, W), or (T, H, W), of the tokens after the prefix; None if they form no grid
            or it is unknown.
    """

    size: Tensor
    position: Tensor | None = None
    owner: Tensor | None = None
    has_empty: bool = False
    grid_size: tuple[int, ...] | None = None

    def merged(self, matching: Matching, size: Tensor) -> Standing:
        """Return the state after a merge.

        Args:
            matching: The merge.
            size: Patches in each token after it, (B, N, 1) float32.
        """
        now, position = owner(matching), matching.kept
        if self.position is not None:
            now, position = now.gather(1, self.owner), self.position.gather(1, position)
        has_empty = self.has_empty or matching.live is not None
        return Standing(size, position, now, has_empty, matching.grid_size)

    def key_mask(self, proportional: bool) -> Tensor | None:
        """Return the mask to add to the attention logits, (B, 1, 1, N) float32; None for no mask.

        With proportional attention, a key is weighted by its number of patches (eq. 1). An empty
        position always has the weight 0.
        """
        if self.position is None:  # fused attention is faster without a mask
            return None
        if proportional:
            return log_size(self.size)
        return log_size(self.size > 0) if self.has_empty else None

    def owners(self) -> Tensor:
        """Return ``owner``, or the identity (B, N) if nothing has merged yet."""
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
    """One pass: its schedule, and the state of its tokens after each block.

    Args:
        schedule: One entry per block.
        full_at: Indices of the blocks whose output has all tokens.

    Attributes:
        behind: State after each block, by index.
        matchings: Merge of each block that restores all tokens, by index.
    """

    def __init__(self, schedule: tuple[Entry, ...], full_at: Iterable[int]) -> None:
        self.schedule = schedule
        self.full_at = frozenset(full_at)
        self.behind: dict[int, Standing] = {}
        self.matchings: dict[int, Matching | None] = {}

    def enter(self, index: int, x: Tensor, grid_size: tuple[int, ...] | None = None) -> Standing:
        """Return the state of the tokens before a block.

        Args:
            index: Index of the block.
            x: Input of the block, (B, N, C).
            grid_size: Grid of the tokens before the first block, if known.
        """
        if index - 1 in self.behind:
            return self.behind[index - 1]
        size = x.new_ones((*x.shape[:2], 1), dtype=torch.float32)
        return Standing(size, grid_size=grid_size)


class _Passes(threading.local):
    """A thread's passes: the running one, the last one, and one that a backward recomputes."""

    # Set on each instance, because torch.compile guards on its attributes.
    def __init__(self) -> None:
        self.active: Trace | None = None
        self.last: Trace | None = None
        self.resumed: tuple[int, int, Trace] | None = None


class Traces:
    """The running pass, the last one, and those whose backward is pending.

    Args:
        num_blocks: Number of blocks of the model.
    """

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._own = _Passes()
        self._latest: Trace | None = None
        self._waiting: OrderedDict[tuple[int, int], Trace] = OrderedDict()

    def __deepcopy__(self, memo: dict[int, object]) -> Traces:
        return Traces(self.num_blocks)

    @property
    def active(self) -> Trace | None:
        """The pass that is running in this thread; None if there is none."""
        return self._own.active

    @property
    def last(self) -> Trace | None:
        """The last pass of this thread, or of any thread if this one had none."""
        return self._latest if self._own.last is None else self._own.last

    def start(self, trace: Trace) -> Trace | None:
        """Start a pass in this thread and return the one that was running, or None."""
        # Not a context manager, which torch.compile of torch 2.1 does not support here.
        before, self._own.active = self._own.active, trace
        return before

    def stop(self, trace: Trace, before: Trace | None) -> None:
        """End the pass and continue the one that :meth:`start` returned."""
        self._own.active = before
        self._own.last = self._latest = trace

    def at(self, index: int, x: Tensor) -> Trace | None:
        """Return the pass to which this call of block ``index`` on ``x`` belongs.

        Outside the model's forward, a block is either recomputed in a backward or called alone. In
        a backward, ``x`` has the same memory address as in the pass, which saved it. A block that
        is called alone belongs to no pass: None.
        """
        if self.active is not None:
            return self.active
        # Outside a backward, an address identifies nothing, because memory is reused.
        if is_compiling() or torch._C._current_graph_task_id() == -1 or is_transforming():
            return None
        key = (index, x.data_ptr())
        resumed = self._own.resumed
        if resumed is not None and resumed[:2] == key:
            return resumed[2]
        return self._waiting.get(key)

    def remember(self, index: int, x: Tensor, out: Tensor, trace: Trace) -> None:
        """Record the input of block ``index``, so that :meth:`at` finds its pass later.

        Args:
            index: Index of the block.
            x: Input of the block, (B, N, C).
            out: Output of the block.
            trace: The pass.
        """
        if is_compiling() or is_transforming():  # nothing is recomputed within torch.func
            return
        if self.active is None:
            # A checkpoint over several blocks only saves the input of the first one.
            self._own.resumed = (index + 1, out.data_ptr(), trace)
        elif torch.is_grad_enabled() or x.requires_grad:
            key = (index, x.data_ptr())
            self._waiting.pop(key, None)
            self._waiting[key] = trace
            if len(self._waiting) > _PASSES_KEPT * self.num_blocks * threading.active_count():
                self._waiting.popitem(last=False)
