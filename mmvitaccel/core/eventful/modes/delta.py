"""The paper's incremental attention (arXiv 2308.13494, section 4.2): N x N state, approximate.

The logits of all pairs are stored; rows of changed queries and columns of changed keys are
recomputed. The product of attention A and values v is accumulated over the changed columns only,
``A_new dv + dA v_old``. Softmax also changes the other columns of A, which is ignored; this is the
approximation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmvitaccel.core.attention.rel_pos import row_and_column
from mmvitaccel.core.eventful.gates.gate import DeltaGate
from mmvitaccel.core.eventful.gates.output import Output
from mmvitaccel.core.eventful.modes.mode import QKV, Change, Logits


@dataclass
class DeltaMemory:
    """State of the delta mode, all in single precision.

    Attributes:
        logits: (B, h, N, K), with relative positions.
        attention: Gate over the columns of A, (B, h, N, K).
        values: Gate over the values, (B, h, K, D).
        product: The accumulated output, (B, h, N, D).
    """

    logits: Tensor
    attention: DeltaGate
    values: DeltaGate
    product: Tensor


class DeltaAttention:
    """The paper's accumulator. It needs 8 bytes for each pair of tokens, head and layer."""

    def start(self, qkv: QKV, logits: Logits) -> tuple[Tensor, DeltaMemory]:
        """See :class:`mmvitaccel.core.eventful.modes.mode.AttentionMode`."""
        q, k, v = (t.float() for t in qkv)
        scores = (q * logits.scale) @ k.transpose(-1, -2)
        terms = logits.terms(qkv.q)
        if terms is not None:
            scores += terms.spread()
        if logits.key_bias is not None:
            scores += logits.key_bias[:, None, None]
        attention = scores.softmax(-1)
        product = attention @ v
        # V may be the caller's buffer, which the gate would change.
        memory = DeltaMemory(scores, DeltaGate(attention, -1), DeltaGate(v.clone()), product)
        return product.to(qkv.q.dtype, copy=True), memory

    def step(self, memory: DeltaMemory, qkv: QKV, change: Change, logits: Logits) -> Output:
        """See :class:`mmvitaccel.core.eventful.modes.mode.AttentionMode`."""
        if change.queries.everything:
            self._rebuild(memory, qkv, logits)
        elif change.keys.index.shape[1] > 0:
            self._update_logits(memory.logits, qkv, change, logits)
            self._accumulate(memory, qkv.v, change)
        return Output(memory.product, None, qkv.q.dtype)

    def _rebuild(self, memory: DeltaMemory, qkv: QKV, logits: Logits) -> None:
        """Attend over all tokens in place, which removes accumulated errors."""
        _, fresh = self.start(qkv, logits)
        memory.logits.copy_(fresh.logits)
        memory.attention.reference.copy_(fresh.attention.reference)
        memory.values.reference.copy_(fresh.values.reference)
        memory.product.copy_(fresh.product)

    def _update_logits(self, stored: Tensor, qkv: QKV, change: Change, logits: Logits) -> None:
        """Update rows of changed queries, then columns of changed keys."""
        q, k = qkv.q.float() * logits.scale, qkv.k.float()
        terms = logits.terms(qkv.q)
        rows = change.queries.gather(q) @ k.transpose(-1, -2)  # (B, h, M, K)
        columns = q @ change.keys.gather(k).transpose(-1, -2)  # (B, h, N, L)
        if terms is not None:
            y, x = row_and_column(change.keys.index, logits.rel_pos.rows_w.shape[1])
            rows += (
                change.queries.gather(terms.height)
                .unsqueeze(-1)
                .add(change.queries.gather(terms.width).unsqueeze(-2))
                .flatten(-2)
            )
            columns += _columns(terms.height, y) + _columns(terms.width, x)
        if logits.key_bias is not None:
            rows += logits.key_bias[:, None, None]
            columns += logits.key_bias.gather(1, change.keys.index)[:, None, None]
        change.queries.put(stored, rows)
        change.keys.put(stored.transpose(-1, -2), columns.transpose(-1, -2))

    def _accumulate(self, memory: DeltaMemory, v: Tensor, change: Change) -> None:
        """``A_new dv + dA v_old`` over the changed columns."""
        batch, heads, rows, _ = memory.logits.shape
        keys, chosen = change.keys.index[:, None], change.keys.chosen
        lse = memory.logits.logsumexp(-1, keepdim=True)
        index = keys.unsqueeze(2).expand(batch, heads, rows, -1)
        columns = (memory.logits.gather(-1, index) - lse).exp()
        if chosen is not None:
            # Padding keys did not pass the gate, so their columns are outdated
            kept = memory.attention.reference.gather(-1, index)
            columns = torch.where(chosen[:, None, None], columns, kept)
        _, d_attention = memory.attention.let_through(index, columns)
        new_v = change.keys.gather(v.float())
        index = keys.unsqueeze(-1).expand(batch, heads, -1, v.shape[-1])
        old_v, d_values = memory.values.let_through(index, new_v)
        memory.product += columns @ d_values
        memory.product += d_attention @ old_v

    def __repr__(self) -> str:
        return "DeltaAttention()"


def _columns(terms: Tensor, index: Tensor) -> Tensor:
    """Terms (B, h, N, positions) of the keys at positions ``index`` (B, L), (B, h, N, L)."""
    batch, heads, rows, _ = terms.shape
    return terms.gather(-1, index[:, None, None].expand(batch, heads, rows, -1))
