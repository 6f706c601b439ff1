"""Incremental attention that equals dense attention, with O(N) state and no N x N matrix.

Each query row keeps running sums (:mod:`mmvitaccel.core.eventful.modes.running_sums`). The row of a
changed query is recomputed over all keys. In other rows, only the terms of changed keys are
exchanged: one matrix product subtracts the terms of the old keys and values and adds the new ones.

Shapes: B batch, h heads, N queries, K keys, L changed keys, D channels of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmvitaccel.arguments import number, refuse
from mmvitaccel.core.attention.dense import dense_attention_with_lse
from mmvitaccel.core.attention.rel_pos import RelPos, row_and_column
from mmvitaccel.core.eventful.gates.output import Output
from mmvitaccel.core.eventful.gates.selection import Selection, complement
from mmvitaccel.core.eventful.modes.mode import QKV, Change, Logits
from mmvitaccel.core.eventful.modes.running_sums import Guard, RunningSums
from mmvitaccel.core.kernels import exchange
from mmvitaccel.core.kernels.operators import can_attend

# Logits of one block: on a CPU 256 rows of 512 old and 512 new keys stay in the cache.
CPU_BLOCK_LOGITS = 2**18
DEVICE_BLOCK_LOGITS = 2**26


class ExactAttention:
    """Running sums per query row.

    Args:
        guard: Rule for recomputing rows.
        dense_share: Use dense attention if the running sums would cost more than this share of its
            multiply-adds. The default is below 1, because multiply-adds of running sums are slower.

    Raises:
        ValueError: The guard is not a Guard, or the share is negative or not a number.
    """

    def __init__(self, guard: Guard | None = None, dense_share: float = 0.8) -> None:
        if guard is not None and not isinstance(guard, Guard):
            refuse("ExactAttention", "guard", guard, "a Guard or None", wrong_type=True)
        self.guard = Guard() if guard is None else guard
        self.dense_share = number(
            "ExactAttention", "dense_share", dense_share, least=0, or_infinite=True
        )

    def start(self, qkv: QKV, logits: Logits) -> tuple[Tensor, RunningSums]:
        """See :class:`mmvitaccel.core.eventful.modes.mode.AttentionMode`."""
        out, lse = _attend(qkv, logits, logits.rel_pos)
        lse = lse.contiguous()
        ones = torch.ones_like(lse)
        # The sums are changed in place, but the output belongs to the caller.
        numerator = out.clone(memory_format=torch.contiguous_format)
        turn = torch.zeros((), dtype=torch.int64, device=lse.device)
        memory = RunningSums(lse, ones, ones.clone(), numerator, turn)
        return out.to(qkv.q.dtype), memory

    def step(self, memory: RunningSums, qkv: QKV, change: Change, logits: Logits) -> Output:
        """See :class:`mmvitaccel.core.eventful.modes.mode.AttentionMode`."""
        out = Output(memory.numerator, memory.denominator, qkv.q.dtype)
        everything = change.queries.everything  # a refresh: old sums are discarded
        if everything or self._dense_is_cheaper(qkv, change) or memory.overdue.raised:
            self._attend_all(memory, qkv, logits)
            return out
        if change.keys.index.shape[1] > 0:
            exchange_keys(memory, qkv, change, logits)
        rows = Selection(self.guard.rows(memory, change), qkv.q.shape[2])
        if rows.index.shape[1] >= self.dense_share * qkv.q.shape[2]:
            self._attend_all(memory, qkv, logits)
        elif rows.index.shape[1] > 0:
            q = rows.gather(qkv.q)
            some = _attend(QKV(q, qkv.k, qkv.v), logits, logits.rel_pos_at(rows.index))
            memory.attended(*some, rows.index)
        return out

    def move(
        self, memory: RunningSums, qkv: QKV, keys: Tensor, before: Logits, after: Logits
    ) -> None:
        """See :class:`mmvitaccel.core.eventful.modes.mode.MovesAttention`."""
        q, k, v = qkv.q.float(), qkv.k[:, :, keys].float(), qkv.v[:, :, keys].float()
        # Logits are laid out (B, h, L, N): whole rows of the position terms are picked by key.
        products = (k * after.scale) @ q.transpose(-1, -2) - memory.shift.unsqueeze(-2)
        old, new = (_with_places(products, logits, q, keys).exp_() for logits in (before, after))
        new -= old
        memory.numerator += new.transpose(-1, -2) @ v
        memory.denominator += new.sum(-2)
        torch.maximum(memory.peak, memory.denominator, out=memory.peak)

    def _dense_is_cheaper(self, qkv: QKV, change: Change) -> bool:
        """Compare multiply-adds: 2 M K + 4 (N - M) L against 2 N K, per channel."""
        rows, keys = qkv.q.shape[2], qkv.k.shape[2]
        changed_rows, changed_keys = change.queries.index.shape[1], change.keys.index.shape[1]
        cost = 2 * changed_rows * keys + 4 * (rows - changed_rows) * changed_keys
        return cost >= self.dense_share * 2 * rows * keys

    def _attend_all(self, memory: RunningSums, qkv: QKV, logits: Logits) -> None:
        memory.attended(*_attend(qkv, logits, logits.rel_pos))
        memory.overdue.clear()

    def __repr__(self) -> str:
        return f"ExactAttention(guard={self.guard}, dense_share={self.dense_share})"


def _attend(qkv: QKV, logits: Logits, rel_pos: RelPos | None) -> tuple[Tensor, Tensor]:
    """Dense attention in single precision, because rounded terms could not be subtracted."""
    return dense_attention_with_lse(*qkv, logits.scale, rel_pos, logits.key_bias)


def _with_places(products: Tensor, logits: Logits, q: Tensor, keys: Tensor) -> Tensor:
    """Logits (B, h, L, N) of all queries and ``keys`` (L,), including relative positions."""
    places = row_and_column(keys, logits.rel_pos.rows_w.shape[1])
    height, width = (
        terms.transpose(-1, -2).contiguous().index_select(-2, place)
        for terms, place in zip(logits.terms(q), places)
    )
    return height.add_(width).add_(products)


def exchange_keys(sums: RunningSums, qkv: QKV, change: Change, logits: Logits) -> None:
    """Exchange the terms of changed keys in the rows of unchanged queries.

    Args:
        sums: Running sums, changed in place.
        qkv: All queries, keys and values, including the changed ones.
        change: The changes, with L keys.
        logits: Definition of the logits.
    """
    rows = complement(change.queries)
    new_k, new_v = change.keys.gather(qkv.k), change.keys.gather(qkv.v)
    # The compiled loop does not support a key bias
    if logits.key_bias is not None or not can_attend(qkv.q):
        _exchange_by_operators(sums, qkv.q, rows, change, (new_k, new_v), logits)
        return
    rows_h, rows_w, _ = logits.rel_pos or (None, None, None)
    for b in range(rows.shape[0]):
        place = None if rows_h is None else change.keys.index[b]
        exchange.exchange_keys(
            qkv.q[b], sums.shift[b], sums.denominator[b], sums.numerator[b], rows[b],
            change.old_k[b], new_k[b], change.old_v[b], new_v[b],
            logits.scale, rows_h, rows_w, place,
        )  # fmt: skip


def _exchange_by_operators(
    sums: RunningSums,
    q: Tensor,
    rows: Tensor,
    change: Change,
    new: tuple[Tensor, Tensor],
    logits: Logits,
) -> None:
    """The exchange without the compiled kernel, block by block."""
    terms, heads = logits.terms(q.float()), q.shape[1]
    width = 2 * change.keys.index.shape[1]
    budget = CPU_BLOCK_LOGITS if q.device.type == "cpu" else DEVICE_BLOCK_LOGITS
    head_step = min(max(budget // max(rows.shape[1] * width, 1), 1), heads)
    row_step = max(budget // (head_step * width), 1)
    # (B, h, 2L, D), old before new; the scale goes into the smaller factor of the product.
    keys = torch.cat((change.old_k, new[0]), 2).float().mul_(logits.scale)
    values = torch.cat((-change.old_v.float(), new[1].float()), 2)
    bias = logits.key_bias  # (B, K) -> (B, 2L)
    if bias is not None:
        bias = bias.gather(1, change.keys.index).repeat(1, 2)
    for b in range(rows.shape[0]):
        place = None
        if terms is not None:
            place = row_and_column(change.keys.index[b], logits.rel_pos.rows_w.shape[1])
        for first in range(0, heads, head_step):
            h = slice(first, first + head_step)
            of_heads = _Heads(
                sums.shift[b, h], sums.denominator[b, h], sums.numerator[b, h], q[b, h],
                None if terms is None else (terms.height[b, h], terms.width[b, h]), place,
                None if bias is None else bias[b],
            )  # fmt: skip
            for block in rows[b].split(row_step):
                of_heads.exchange(block, keys[b, h], values[b, h])


@dataclass(frozen=True)
class _Heads:
    """Some heads of one batch entry: views (h, N, ...) of the sums and the queries."""

    shift: Tensor
    denominator: Tensor
    numerator: Tensor
    q: Tensor
    terms: tuple[Tensor, Tensor] | None
    place: tuple[Tensor, Tensor] | None
    key_bias: Tensor | None

    def exchange(self, rows: Tensor, keys: Tensor, values: Tensor) -> None:
        """Exchange the keys and values (h, 2L, D), old before new, in the rows (R,)."""
        shift = self.shift.index_select(1, rows).unsqueeze(1)
        q = self.q.index_select(1, rows).float().transpose(1, 2)
        half = keys.shape[1] // 2
        # Logits are laid out (h, 2L, R): whole rows of the position terms are then picked by key.
        if self.terms is None:
            weights = torch.baddbmm(-shift, keys, q)
            if self.key_bias is not None:
                weights += self.key_bias[:, None]
        else:
            height, width = (
                t.index_select(1, rows).transpose(1, 2).float().contiguous() for t in self.terms
            )
            weights = keys.new_empty(keys.shape[0], 2 * half, rows.shape[0])
            # Subtracting the shift from the H terms of a row is cheaper than from 2L logits
            height = height.sub_(shift).index_select(1, self.place[0])
            torch.add(height, width.index_select(1, self.place[1]), out=weights[:, :half])
            weights[:, half:] = weights[:, :half]
            weights.baddbmm_(keys, q)
        weights.exp_()
        numerator = self.numerator.index_select(1, rows)
        numerator.baddbmm_(weights.transpose(1, 2), values)
        self.numerator.index_copy_(1, rows, numerator)
        gained = weights[:, half:].sum(1) - weights[:, :half].sum(1)
        self.denominator.index_add_(1, rows, gained)
