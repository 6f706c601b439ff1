"""Stored queries, keys and values of a global block, and their attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmvitaccel.core.attention.pooling import cells_of, pool_grid
from mmvitaccel.core.attention.rel_pos import PositionTerms, RelPos, pool_rows
from mmvitaccel.core.eventful.gates.gate import TokenGate
from mmvitaccel.core.eventful.gates.host_reads import reading_is_free
from mmvitaccel.core.eventful.gates.output import Output
from mmvitaccel.core.eventful.gates.selection import Selection, from_mask
from mmvitaccel.core.eventful.gates.token_errors import errors_of_output
from mmvitaccel.core.eventful.modes.mode import QKV, AttentionMode, Change, Logits


@dataclass
class Attended:
    """Output of attention in one frame.

    Attributes:
        errors: (B, N) norms of the difference to the reference of the next gate.
        out: The output.
    """

    errors: Tensor
    out: Output

    def tokens(self, selection: Selection) -> Tensor:
        """The selected tokens, (B, M, C)."""
        return self.out.of(selection)

    def block(self, rows: slice) -> Tensor:
        """Consecutive tokens, (B, n, C)."""
        return self.out.block(rows)


@dataclass
class KeyPool:
    """Keys and values averaged over squares of tokens (section 4.4).

    Attributes:
        grid_size: (H, W) of the tokens after the prefix.
        pool_size: Side of a square in tokens.
        num_prefix_tokens: Number of leading tokens, which are not pooled.
        cell_of: (N,) index of the pooled key of each token.
        k: Pooled keys (B, h, K, D).
        v: Pooled values (B, h, K, D).
    """

    grid_size: tuple[int, int]
    pool_size: int
    num_prefix_tokens: int
    cell_of: Tensor
    k: Tensor
    v: Tensor

    @classmethod
    def start(
        cls, qkv: QKV, grid_size: tuple[int, int] | None, pool_size: int, num_prefix_tokens: int
    ) -> KeyPool:
        """Pool the keys and values of a first frame.

        Raises:
            ValueError: The grid is unknown.
        """
        if grid_size is None:
            raise ValueError(
                f"Eventful: kv_pool_size={pool_size} needs the token grid, which this model does "
                f"not provide; set kv_pool_size=1."
            )
        grid_cells = cells_of(grid_size, pool_size).to(qkv.q.device) + num_prefix_tokens
        prefix = torch.arange(num_prefix_tokens, device=qkv.q.device)
        pool = cls(
            grid_size, pool_size, num_prefix_tokens, torch.cat((prefix, grid_cells)), qkv.k, qkv.v
        )
        pool.k, pool.v = pool.pooled(qkv.k), pool.pooled(qkv.v)
        return pool

    def pooled(self, x: Tensor) -> Tensor:
        """(B, h, N, D) -> (B, h, K, D)."""
        prefix, x = x[:, :, : self.num_prefix_tokens], x[:, :, self.num_prefix_tokens :]
        return torch.cat((prefix, pool_grid(x, self.grid_size, self.pool_size)), 2)

    def update(self, qkv: QKV, selection: Selection) -> Change:
        """Pool all keys and values again after the selected tokens changed."""
        cells = self.cell_of[selection.index]
        mask = torch.zeros(cells.shape[0], self.k.shape[2], dtype=torch.bool, device=cells.device)
        mask.scatter_(1, cells, True)
        # Only the device knows the number of changed cells
        known = reading_is_free(cells.device)
        keys = from_mask(mask, None if known else min(cells.shape[1], mask.shape[1]))
        change = Change(selection, keys, keys.gather(self.k), keys.gather(self.v))
        self.k, self.v = self.pooled(qkv.k), self.pooled(qkv.v)
        return change


@dataclass
class GlobalAttention:
    """State of the attention of a global block in a stream.

    Attributes:
        qkv: Queries, keys and values as they last passed, each (B, h, N, D), in the storage dtype.
        dtype: Dtype of the computation.
        mode: The attention mode.
        logits: Definition of the logits.
        pool: Pooled keys and values, or None.
        memory: State of the mode.
    """

    qkv: QKV
    dtype: torch.dtype
    mode: AttentionMode
    logits: Logits
    pool: KeyPool | None
    memory: Any = None

    @classmethod
    def start(
        cls,
        qkv: QKV,
        mode: AttentionMode,
        logits: Logits,
        grid_size: tuple[int, int] | None,
        pool_size: int = 1,
        num_prefix_tokens: int = 0,
        dtype: torch.dtype | None = None,
    ) -> tuple[GlobalAttention, Tensor]:
        """Attend over a first frame, with output (B, N, C).

        With another storage ``dtype``, attention uses the stored values, so that running sums later
        subtract exactly what they added.
        """
        own = qkv.q.dtype
        kept = QKV(*(_head_by_head(t, dtype or own) for t in qkv))
        qkv = QKV(*(t.to(own) for t in kept))
        pool = None
        if pool_size > 1:
            pool = KeyPool.start(qkv, grid_size, pool_size, num_prefix_tokens)
            if logits.rel_pos is not None:
                rows_h, rows_w, _ = logits.rel_pos
                pooled = RelPos(pool_rows(rows_h, pool_size), pool_rows(rows_w, pool_size))
                logits = Logits(logits.scale, pooled)
        attention = cls(kept, own, mode, logits, pool)
        out, attention.memory = mode.start(attention._attended(qkv), logits)
        return attention, out.transpose(1, 2).flatten(2)  # (B, h, N, D) -> (B, N, C)

    def take(self, new: QKV, selection: Selection, next_gate: TokenGate) -> Attended:
        """Attend over a later frame.

        Args:
            new: Queries, keys and values of the selected tokens, each (B, h, M, D).
            selection: The selected tokens.
            next_gate: Gate before the output projection.
        """
        old_k, old_v = (selection.gather(t).to(self.dtype) for t in self.qkv[1:])
        change = Change(selection, selection, old_k, old_v)
        if selection.everything:  # gather returned the old buffers themselves
            self.qkv = QKV(*(_head_by_head(t, self.qkv.q.dtype) for t in new))
        else:
            for buffer, values in zip(self.qkv, new):
                selection.put(buffer, values)
        qkv = QKV(*(t.to(self.dtype) for t in self.qkv))
        if self.pool is not None:
            change = self.pool.update(qkv, selection)
        out = self.mode.step(self.memory, self._attended(qkv), change, self.logits)
        return Attended(errors_of_output(next_gate.reference, out), out)

    def received(self) -> Tensor:
        """Attention (B, N) float32 that each token receives from all, from stored queries and keys.

        The mean over heads and queries of the softmax; with pooled keys, all tokens of a cell have
        the value of the cell.
        """
        qkv = self._attended(QKV(*(t.to(self.dtype) for t in self.qkv)))
        terms, by_head = self.logits.terms(qkv.q), []
        for head in range(qkv.q.shape[1]):
            logits = (qkv.q[:, head].float() * self.logits.scale) @ qkv.k[:, head].float().mT
            if terms is not None:
                own = PositionTerms(*(t[:, head : head + 1] for t in terms))
                logits += own.spread()[:, 0]
            by_head.append(logits.softmax(-1).mean(1))
        mean = torch.stack(by_head).mean(0)
        return mean if self.pool is None else mean[:, self.pool.cell_of]

    def move(self, step: tuple[int, int], keys: Tensor | None) -> None:
        """Follow a movement of the view.

        Args:
            step: Movement in rows and columns.
            keys: (L,) int64, slots of the tokens that are new in the view and will pass the first
                gate in this frame; None if all tokens will.
        """
        before, self.logits = self.logits, self.logits.rolled(step)
        if keys is None or before.rel_pos is None or not hasattr(self.mode, "move"):
            return
        qkv = QKV(*(t.to(self.dtype) for t in self.qkv))
        self.mode.move(self.memory, qkv, keys, before, self.logits)

    def _attended(self, qkv: QKV) -> QKV:
        return qkv if self.pool is None else QKV(qkv.q, self.pool.k, self.pool.v)


def _head_by_head(x: Tensor, dtype: torch.dtype) -> Tensor:
    """A contiguous copy of (B, h, N, D), with the tokens of a head next to each other."""
    return torch.empty(x.shape, dtype=dtype, device=x.device).copy_(x)
