"""Softmax attention as running sums, and the rule for recomputing them.

Per query row i: a shift m_i, the denominator ``sum_j exp(s_ij - m_i)`` and the numerator
``sum_j exp(s_ij - m_i) v_j``. Terms can be subtracted and added.

Because of cancellation, a row that has lost most of its sum since it was last recomputed has
rounding errors of the size of the lost part. Such rows are recomputed over all keys. In addition,
all rows are recomputed in turn over about a hundred frames, so that errors cannot accumulate.

Shapes: B batch, h heads, N query rows, D channels of a head.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from mmvitaccel.arguments import number, whole_number
from mmvitaccel.core.eventful.gates.host_reads import Alarms, reading_is_free
from mmvitaccel.core.eventful.modes.mode import Change

# Above this, a denominator is near overflow: the row is recomputed with a new shift.
LARGEST_SUM = 1e20


@dataclass
class RunningSums:
    """State of the exact mode, in single precision.

    Attributes:
        shift: m, (B, h, N).
        denominator: (B, h, N).
        peak: The largest denominator since the row was last recomputed, (B, h, N).
        numerator: (B, h, N, D).
        turn: First row of the next rows to recompute in turn; () int64 on the device of the sums,
            so that a frame does not depend on values of the host.
        overdue: Alarm for more rows in need than the quota.
    """

    shift: Tensor
    denominator: Tensor
    peak: Tensor
    numerator: Tensor
    turn: Tensor
    overdue: Alarms = field(default_factory=Alarms)

    def attended(self, out: Tensor, lse: Tensor, rows: Tensor | None = None) -> None:
        """Set rows that were attended over all keys: shift lse, denominator 1, numerator out.

        Args:
            out: (B, h, R, D).
            lse: (B, h, R).
            rows: (B, R) int64, without duplicates; None for all rows in order.
        """
        for kept, values in (
            (self.shift, lse), (self.denominator, 1.0), (self.peak, 1.0), (self.numerator, out)
        ):  # fmt: skip
            _put(kept, rows, values)


def _put(kept: Tensor, rows: Tensor | None, values: Tensor | float) -> None:
    """Write ``values`` into some rows of (B, h, N, ...)."""
    for b in range(len(kept)):
        where = (b,) if rows is None else (b, slice(None), rows[b])
        kept[where] = values[b] if isinstance(values, Tensor) else values


@dataclass(frozen=True)
class Guard:
    """Rule for recomputing rows whose query did not change.

    Attributes:
        smallest_share: A row is in need if its denominator is below this share of its peak.
        quota: Number of rows recomputed per frame on devices other than a CPU, where the number of
            rows in need is not read; worst first. If more are in need, all rows are recomputed in
            the first frame after the host learns of it.
        turn_frames: Number of frames over which every row is recomputed once.

    Raises:
        ValueError: A value is out of range.
    """

    smallest_share: float = 1 / 8
    quota: int = 32
    turn_frames: int = 256

    def __post_init__(self) -> None:
        share = number("Guard", "smallest_share", self.smallest_share, least=0, below=1)
        object.__setattr__(self, "smallest_share", share)
        for name, least, of in (("quota", 0, "rows"), ("turn_frames", 1, "frames")):
            value = whole_number("Guard", name, getattr(self, name), least=least, of=of)
            object.__setattr__(self, name, value)

    def rows(self, sums: RunningSums, change: Change) -> Tensor:
        """Rows to recompute, (B, R) int64, changed queries first, without duplicates."""
        num_rows = sums.denominator.shape[2]
        changed = change.queries.index
        torch.maximum(sums.peak, sums.denominator, out=sums.peak)
        share = sums.denominator / sums.peak
        # With this comparison, NaN rows are in need
        sound = (share >= self.smallest_share) & (sums.denominator <= LARGEST_SUM)
        need = torch.where(sound, 1 - share, 2.0).amax(1)  # (B, N); 2: in need, 3: in turn
        turn = -(-num_rows // self.turn_frames)
        in_turn = (sums.turn + torch.arange(turn, device=need.device)) % num_rows
        need.index_fill_(1, in_turn, 3.0)
        need.scatter_(1, changed, -1.0)
        sums.turn.add_(turn).remainder_(num_rows)
        in_need = (need >= 2).sum(1).amax()
        spare = num_rows - changed.shape[1]
        if reading_is_free(need.device):
            extra = min(int(in_need), spare)
        else:
            extra = min(self.quota + turn, spare)
            sums.overdue.watch(in_need > extra)
        worst = need.topk(extra, dim=1, sorted=False).indices
        return torch.cat((changed, worst), 1)
