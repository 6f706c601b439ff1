"""Attention over gated queries, keys and values, behind one interface.

A block keeps q, k and v of all tokens as they were last let through. In each frame some of them
change; a mode says what is then computed:

- ``tokenwise``: everything, so gates save work in the linear layers only;
- ``delta``: the paper's accumulator (:mod:`mmvitaccel.core.delta_attention`), an approximation;
- ``exact``: running sums (:mod:`mmvitaccel.core.exact_attention`), equal to ``tokenwise``.

Shapes: B batch, h heads, N queries, K keys (fewer than N where they are pooled), D channels of a
head; M queries and L keys changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from mmvitaccel.core.dense_attention import dense_attention
from mmvitaccel.core.rel_pos import PositionTerms, position_terms
from mmvitaccel.core.selection import Selection


class QKV(NamedTuple):
    """Queries (B, h, N, D), keys (B, h, K, D) and values (B, h, K, D) of one frame."""

    q: Tensor
    k: Tensor
    v: Tensor


class Change(NamedTuple):
    """What is new in a frame.

    Attributes:
        queries: The queries that changed, of N.
        keys: The keys and values that changed, of K.
        old_k: (B, h, L, D), those keys as they were.
        old_v: (B, h, L, D), those values as they were.
    """

    queries: Selection
    keys: Selection
    old_k: Tensor
    old_v: Tensor


@dataclass(frozen=True)
class Output:
    """Attention's output in one frame; its tensors belong to the mode, which will change them.

    Attributes:
        numerator: (B, h, N, D).
        denominator: (B, h, N) by which it is yet to be divided, or None.
        dtype: Of what is read.
    """

    numerator: Tensor
    denominator: Tensor | None
    dtype: torch.dtype

    def block(self, rows: slice) -> Tensor:
        """Consecutive tokens, (B, n, h * D)."""
        numerator = self.numerator[:, :, rows]
        denominator = None if self.denominator is None else self.denominator[:, :, rows]
        return self._divided(numerator, denominator)

    def of(self, selection: Selection) -> Tensor:
        """The selected tokens, (B, M, h * D), which belong to the caller."""
        denominator = self.denominator
        if denominator is not None:
            denominator = selection.gather(denominator.unsqueeze(-1)).squeeze(-1)
        out = self._divided(selection.gather(self.numerator), denominator)
        return out.clone() if out.data_ptr() == self.numerator.data_ptr() else out

    def _divided(self, out: Tensor, denominator: Tensor | None) -> Tensor:
        if denominator is not None:
            out = out / denominator.unsqueeze(-1)
        return out.to(self.dtype).transpose(1, 2).flatten(2)  # (B, h, n, D) -> (B, n, h * D)


@dataclass(frozen=True)
class Logits:
    """How queries and keys become logits.

    Attributes:
        scale: Factor of their products.
        rows_h: Relative positions on the vertical axis (H, key rows, D), times the unscaled
            query, or None where there are none.
        rows_w: On the horizontal axis (W, key columns, D), or None.
    """

    scale: float
    rows_h: Tensor | None = None
    rows_w: Tensor | None = None

    def terms(self, q: Tensor) -> PositionTerms | None:
        """Position terms of all queries (B, h, N, D)."""
        return None if self.rows_h is None else position_terms(q, self.rows_h, self.rows_w)

    def terms_of(self, q: Tensor, index: Tensor) -> PositionTerms | None:
        """Position terms of some queries.

        Args:
            q: (B, h, R, D).
            index: (B, R), which of the grid's they are.
        """
        if self.rows_h is None:
            return None
        y, x = self.place(index, self.rows_w.shape[0])
        by_row = q.transpose(1, 2)  # (B, R, h, D)
        # (B, R, h, D) x (B, R, D, key rows) -> (B, h, R, key rows)
        height, width = (
            (by_row @ rows[at].transpose(2, 3).to(q.dtype)).transpose(1, 2)
            for rows, at in ((self.rows_h, y), (self.rows_w, x))
        )
        return PositionTerms(height, width)

    @staticmethod
    def place(index: Tensor, columns: int) -> tuple[Tensor, Tensor]:
        """Grid row and column of what lies at ``index`` in row-major order."""
        return index.div(columns, rounding_mode="floor"), index.remainder(columns)


class AttentionMode(Protocol):
    """One way to attend incrementally. It holds options; what it remembers is the stream's."""

    def start(self, qkv: QKV, logits: Logits) -> tuple[Tensor, Any]:
        """Attend over a first frame.

        Returns:
            The output (B, h, N, D), which belongs to the caller, and what :meth:`step` is to be
            given: any plain object.
        """

    def step(self, memory: Any, qkv: QKV, change: Change, logits: Logits) -> Output:
        """Attend over a later frame.

        Args:
            memory: What :meth:`start` gave; updated in place.
            qkv: All queries, keys and values, the changed ones included.
            change: Which of them changed.
            logits: As it was at the start.

        Returns:
            The output.
        """


class TokenwiseAttention:
    """Dense attention in every frame; the gates save work in the linear layers alone."""

    def start(self, qkv: QKV, logits: Logits) -> tuple[Tensor, None]:
        """See :class:`AttentionMode`; there is nothing to remember."""
        return dense_attention(*qkv, logits.scale, logits.terms(qkv.q)), None

    def step(self, memory: None, qkv: QKV, change: Change, logits: Logits) -> Output:
        """See :class:`AttentionMode`."""
        return Output(self.start(qkv, logits)[0], None, qkv.q.dtype)

    def __repr__(self) -> str:
        return "TokenwiseAttention()"
