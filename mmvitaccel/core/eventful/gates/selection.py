"""Selected tokens of a gate, with gather and scatter operations.

Batches may be ragged: if the entries select different numbers, shorter rows are padded with other
tokens that are marked as not chosen. These are computed too, but their stored values do not change.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Selection:
    """The tokens that pass one gate in one frame.

    Attributes:
        index: (B, k) int64, without duplicates in a row.
        num_tokens: Number N of all tokens.
        chosen: (B, k) bool, False for padding of the row; None if all are chosen.
    """

    index: Tensor
    num_tokens: int
    chosen: Tensor | None = None

    @property
    def everything(self) -> bool:
        """Whether all tokens of all entries are chosen, in order."""
        return self.chosen is None and self.index.shape[1] == self.num_tokens

    @property
    def counts(self) -> list[int]:
        """Number of chosen tokens of each entry of the batch."""
        if self.chosen is None:
            return [self.index.shape[1]] * self.index.shape[0]
        return self.chosen.sum(1).tolist()

    def mask(self) -> Tensor:
        """The chosen tokens as (B, N) bool."""
        chosen = (
            torch.ones_like(self.index, dtype=torch.bool) if self.chosen is None else self.chosen
        )
        mask = torch.zeros(
            len(self.index), self.num_tokens, dtype=torch.bool, device=self.index.device
        )
        return mask.scatter_(1, self.index, chosen)

    def split(self) -> list[Selection]:
        """The selection of each entry of the batch, without padding.

        Synchronises with the device if the batch is ragged.
        """
        return [
            Selection(row[None, :count], self.num_tokens)
            for row, count in zip(self.index, self.counts)
        ]

    def gather(self, x: Tensor) -> Tensor:
        """The selected tokens, (B, N, C) -> (B, k, C) or (B, heads, N, D) -> (B, heads, k, D)."""
        if self.everything:
            return x
        if len(self.index) == 1:  # copies whole rows, unlike gather
            return x[0].index_select(-2, self.index[0])[None]
        picked = x.reshape(-1, x.shape[-1]).index_select(0, self._rows(x))
        return picked.view(*x.shape[:-2], self.index.shape[1], x.shape[-1])

    def put(self, memory: Tensor, values: Tensor) -> Tensor:
        """Write values of the chosen tokens into ``memory``.

        Args:
            memory: (B, N, C) or (B, heads, N, D), changed in place.
            values: (B, k, C) or (B, heads, k, D), in the order of :meth:`gather`.

        Returns:
            ``memory``.
        """
        if self.everything:
            return memory.copy_(values)
        values = self._keep_chosen(values.to(memory.dtype), memory)
        if len(self.index) == 1:
            memory[0].index_copy_(-2, self.index[0], values[0])
            return memory
        if memory.is_contiguous():
            rows = memory.view(-1, memory.shape[-1])
            rows.index_copy_(0, self._rows(memory), values.reshape(-1, memory.shape[-1]))
            return memory
        return memory.scatter_(-2, _spread(self.index, memory), values)

    def _rows(self, x: Tensor) -> Tensor:
        """The selected tokens of (B, ..., N, C) as rows of (B * ... * N, C)."""
        groups = x.shape[:-2].numel()
        index = self.index.repeat_interleave(groups // len(self.index), 0)
        first = torch.arange(groups, device=index.device).unsqueeze(1) * self.num_tokens
        return (index + first).flatten()

    def _keep_chosen(self, values: Tensor, memory: Tensor) -> Tensor:
        """``values`` for chosen tokens, the values in ``memory`` for padding."""
        if self.chosen is None:
            return values
        shape = (self.index.shape[0],) + (1,) * (values.ndim - 3) + (self.index.shape[1], 1)
        return torch.where(self.chosen.view(shape), values, self.gather(memory))


def _spread(index: Tensor, x: Tensor) -> Tensor:
    """Expand (B, k) for gather and scatter along the tokens of ``x``, without a copy."""
    batch, k = index.shape
    index = index.view(batch, *(1,) * (x.ndim - 3), k, 1)
    return index.expand(batch, *x.shape[1:-2], k, x.shape[-1])


def everything(x: Tensor) -> Selection:
    """Select all tokens of (B, N, C)."""
    batch, num_tokens = x.shape[:2]
    index = torch.arange(num_tokens, device=x.device)
    return Selection(index.expand(batch, num_tokens), num_tokens)


def from_mask(mask: Tensor, at_most: int | None = None) -> Selection:
    """Select the tokens where a mask is True.

    Args:
        mask: (B, N) bool.
        at_most: Upper bound of the tokens per row. With it, rows are padded to this number; without
            it, the number is read, which synchronises with the device.
    """
    counts = mask.sum(1)
    longest = int(counts.max()) if at_most is None else at_most
    # Sorted by (not chosen, position): chosen tokens in order, then the others in
    # order, so that a row holds no token twice and does not depend on the rest of the batch.
    order = mask.logical_not().to(torch.uint8).argsort(dim=1, stable=True)
    index = order[:, :longest]
    if at_most is None and bool((counts == longest).all()):
        return Selection(index, mask.shape[1])
    return Selection(index, mask.shape[1], mask.gather(1, index))


def complement(selection: Selection) -> Tensor:
    """The tokens that are not selected, (B, N - k) int64, in order."""
    batch, num_tokens = selection.index.shape[0], selection.num_tokens
    taken = torch.zeros(batch, num_tokens, dtype=torch.uint8, device=selection.index.device)
    taken.scatter_(1, selection.index, 1)
    return taken.argsort(dim=1, stable=True)[:, : num_tokens - selection.index.shape[1]]
