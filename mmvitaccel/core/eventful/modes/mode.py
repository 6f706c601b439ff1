"""Interface of attention over gated queries, keys and values.

A block stores q, k and v of all tokens as they last passed the gate. In each frame some of them
change; a mode defines what is then computed:

- ``tokenwise``: everything, so gates only save work in the linear layers;
- ``delta``: the paper's accumulator (:mod:`.delta`), an approximation;
- ``exact``: running sums (:mod:`.exact`), equal to ``tokenwise``.

Shapes: B batch, h heads, N queries, K keys (fewer than N if pooled), D channels of a head; M
    queries and L keys changed.
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
    """Changes in a frame.

    Attributes:
        queries: The changed queries, of N.
        keys: The changed keys and values, of K.
        old_k: (B, h, L, D), previous values of these keys.
        old_v: (B, h, L, D), previous values of these values.
    """

    queries: Selection
    keys: Selection
    old_k: Tensor
    old_v: Tensor


@dataclass(frozen=True)
class Logits:
    """Definition of the logits of queries and keys.

    Attributes:
        scale: Factor of the products of queries and keys.
        rel_pos: Relative positions of all queries, or None.
        key_bias: Added to all logits of a key, (B, K) float32, or None; not together with relative
            positions.
    """

    scale: float
    rel_pos: RelPos | None = None
    key_bias: Tensor | None = None

    def rel_pos_at(self, place: Tensor) -> RelPos | None:
        """Relative positions of the queries at ``place`` (B, R) in the grid."""
        return None if self.rel_pos is None else self.rel_pos._replace(place=place)

    def rolled(self, step: tuple[int, int]) -> Logits:
        """Logits in the order of slots after the view moved by ``step`` rows and columns."""
        if self.rel_pos is None:
            return self
        rows = (r.roll((by, by), (0, 1)) for r, by in zip(self.rel_pos[:2], step))
        return Logits(self.scale, RelPos(*rows))

    def terms(self, q: Tensor) -> PositionTerms | None:
        """Position terms of all queries (B, h, N, D)."""
        return None if self.rel_pos is None else self.rel_pos.terms(q)


class AttentionMode(Protocol):
    """Protocol of an incremental attention. It has only options; the state is the stream's."""

    def start(self, qkv: QKV, logits: Logits) -> tuple[Tensor, Any]:
        """Attend over a first frame.

        Returns:
            The output (B, h, N, D), which belongs to the caller, and the state for :meth:`step`,
            any plain object.
        """

    def step(self, memory: Any, qkv: QKV, change: Change, logits: Logits) -> Output:
        """Attend over a later frame.

        Args:
            memory: State from :meth:`start`; updated in place.
            qkv: All queries, keys and values, including the changed ones.
            change: The changes.
            logits: The same as at the start.

        Returns:
            The output.
        """


class MovesAttention(Protocol):
    """Additional protocol of modes whose state includes relative positions of keys."""

    def move(self, memory: Any, qkv: QKV, keys: Tensor, before: Logits, after: Logits) -> None:
        """Change the relative positions of keys to those of the tokens that will take their slots.

        Args:
            memory: State from :meth:`AttentionMode.start`; updated in place.
            qkv: All queries, keys and values, not changed yet.
            keys: (L,) int64, slots of the keys. Their queries will change in the same frame.
            before: Logits with the previous positions.
            after: Logits with the new positions; equal for all other queries and keys.
        """


class TokenwiseAttention:
    """Dense attention in every frame; gates only save work in the linear layers."""

    def start(self, qkv: QKV, logits: Logits) -> tuple[Tensor, None]:
        """See :class:`AttentionMode`; there is no state."""
        return dense_attention(*qkv, logits.scale, logits.rel_pos, logits.key_bias), None

    def step(self, memory: None, qkv: QKV, change: Change, logits: Logits) -> Output:
        """See :class:`AttentionMode`."""
        return Output(self.start(qkv, logits)[0], None, qkv.q.dtype)

    def __repr__(self) -> str:
        return "TokenwiseAttention()"
