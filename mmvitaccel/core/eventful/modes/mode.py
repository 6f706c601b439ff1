"""Attention over gated queries, keys and values, behind one interface.

A block keeps q, k and v of all tokens as they were last let through. In each frame some of them
change; a mode says what is then computed:

- ``tokenwise``: everything, so gates save work in the linear layers only;
- ``delta``: the paper's accumulator (:mod:`.delta`), an approximation;
- ``exact``: running sums (:mod:`.exact`), equal to ``tokenwise``.

Shapes: B batch, h heads, N queries, K keys (fewer than N where they are pooled), D channels of a
head; M queries and L keys changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from mmvitaccel.core.attention.dense import dense_attention
from mmvitaccel.core.attention.rel_pos import PositionTerms, RelPos
from mmvitaccel.core.eventful.gates.output import Output
from mmvitaccel.core.eventful.gates.selection import Selection


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
class Logits:
    """How queries and keys become logits.

    Attributes:
        scale: Factor of their products.
        rel_pos: Relative positions of all queries, or None where there are none.
        key_bias: Added to all logits of a key, (B, K) float32, or None; not beside relative
            positions.
    """

    scale: float
    rel_pos: RelPos | None = None
    key_bias: Tensor | None = None

    def rel_pos_at(self, place: Tensor) -> RelPos | None:
        """Relative positions of the queries at ``place`` (B, R) in the grid."""
        return None if self.rel_pos is None else self.rel_pos._replace(place=place)

    def rolled(self, step: tuple[int, int]) -> Logits:
        """For a grid whose view moved by that many rows and columns, slot by slot."""
        if self.rel_pos is None:
            return self
        rows = (r.roll((by, by), (0, 1)) for r, by in zip(self.rel_pos[:2], step))
        return Logits(self.scale, RelPos(*rows))

    def terms(self, q: Tensor) -> PositionTerms | None:
        """Position terms of all queries (B, h, N, D)."""
        return None if self.rel_pos is None else self.rel_pos.terms(q)


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


class MovesAttention(Protocol):
    """What a mode has beside, whose memory holds logits of keys by their places."""

    def move(self, memory: Any, qkv: QKV, keys: Tensor, before: Logits, after: Logits) -> None:
        """Give keys other places, those of the tokens that will take their slots.

        Args:
            memory: What :meth:`AttentionMode.start` gave; updated in place.
            qkv: All queries, keys and values, none of them changed yet.
            keys: (L,) int64, the keys' slots. Their queries will change in the same frame.
            before: With the places that they had.
            after: With those that they get; between all other queries and keys nothing differs.
        """


class TokenwiseAttention:
    """Dense attention in every frame; the gates save work in the linear layers alone."""

    def start(self, qkv: QKV, logits: Logits) -> tuple[Tensor, None]:
        """See :class:`AttentionMode`; there is nothing to remember."""
        return dense_attention(*qkv, logits.scale, logits.rel_pos, logits.key_bias), None

    def step(self, memory: None, qkv: QKV, change: Change, logits: Logits) -> Output:
        """See :class:`AttentionMode`."""
        return Output(self.start(qkv, logits)[0], None, qkv.q.dtype)

    def __repr__(self) -> str:
        return "TokenwiseAttention()"
