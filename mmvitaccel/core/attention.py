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
from mmvitaccel.core.rel_pos import PositionTerms, RelPos
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

    def rel_pos(self, place: Tensor | None = None) -> RelPos | None:
        """Relative positions of the queries at ``place`` (B, R) in the grid; None: of all."""
        return None if self.rows_h is None else RelPos(self.rows_h, self.rows_w, place)

    def terms(self, q: Tensor) -> PositionTerms | None:
        """Position terms of all queries (B, h, N, D)."""
        return None if self.rows_h is None else self.rel_pos().terms(q)


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
        return dense_attention(*qkv, logits.scale, logits.rel_pos()), None

    def step(self, memory: None, qkv: QKV, change: Change, logits: Logits) -> Output:
        """See :class:`AttentionMode`."""
        return Output(self.start(qkv, logits)[0], None, qkv.q.dtype)

    def __repr__(self) -> str:
        return "TokenwiseAttention()"
