"""Attention within windows, computed only for windows with changes.

Queries, keys and values are stored per token, with an additional row for padding. A table of slots
maps positions in windows to rows. A window including its padding is read by one gather, and unused
windows are never built.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmvitaccel.core.attention.dense import dense_attention
from mmvitaccel.core.attention.windows import window_slots
from mmvitaccel.core.eventful.gates.gate import TokenGate
from mmvitaccel.core.eventful.gates.host_reads import reading_is_free
from mmvitaccel.core.eventful.gates.selection import Selection
from mmvitaccel.core.eventful.gates.token_errors import norms, token_errors
from mmvitaccel.core.eventful.modes.mode import QKV, Logits
from mmvitaccel.core.kernels.attend import attend_windows
from mmvitaccel.core.kernels.errors import output_errors
from mmvitaccel.core.kernels.operators import can_attend, can_run

# Number of values gathered at a time on a CPU, which stay in the cache.
CPU_WINDOWS_NUMBERS = 2**21


@dataclass
class WindowedAttention:
    """State of the attention of a windowed block in a stream.

    Shapes: B batch, N tokens, W windows of T slots, h heads, D channels of a head, C = h * D.

    Attributes:
        qkv: Queries, keys and values as they last passed, (B, N + 1, 3, h, D), in the storage
            dtype; the last row is padding.
        dtype: Dtype of the computation.
        errors: (B, N) norms of the output's difference to the reference of the next gate.
        slots: (B * W, T) rows of ``qkv`` with its first two axes flattened.
        window_of: (B, N) index of a token's window among B * W.
        logits: How queries and keys become logits.
        grid_size: (H, W) in tokens; for segments, their number and length.
        window_size: Side of a window in tokens; 0 for segments.
        cut_anew: Whether the windows differ from those of the last frame.
    """

    qkv: Tensor
    dtype: torch.dtype
    errors: Tensor
    slots: Tensor
    window_of: Tensor
    logits: Logits
    grid_size: tuple[int, int]
    window_size: int
    cut_anew: bool = False

    @classmethod
    def start(
        cls,
        qkv: QKV,
        padding: QKV,
        logits: Logits,
        grid_size: tuple[int, int],
        window_size: int,
        dtype: torch.dtype | None = None,
    ) -> tuple[WindowedAttention, Tensor]:
        """Attend over a first frame.

        Args:
            qkv: Each (B, h, N, D).
            padding: Query, key and value of a padding token, each (1, h, 1, D).
            logits: How queries and keys become logits.
            grid_size: (H, W) in tokens.
            window_size: Side of a window in tokens.
            dtype: Storage dtype of queries, keys and values; None for their own.

        Returns:
            The memory, and the output (B, N, C).
        """
        tables = _cut(grid_size, window_size, (0, 0), len(qkv.q))
        return cls._start(qkv, padding, logits, (grid_size, window_size), tables, dtype)

    @classmethod
    def start_segments(
        cls, qkv: QKV, logits: Logits, segments: int, dtype: torch.dtype | None = None
    ) -> tuple[WindowedAttention, Tensor]:
        """Attend over a first frame, whose windows are segments of its tokens with equal length.

        Args:
            qkv: Each (B, h, N, D).
            logits: How queries and keys become logits.
            segments: Number of segments.
            dtype: As in :meth:`start`.

        Returns:
            As :meth:`start`.
        """
        batch, _, num_tokens, _ = qkv.q.shape
        slots = torch.arange(num_tokens).view(segments, -1)
        # A padding row that no window uses
        padding = QKV(*(part[:1, :, :1] for part in qkv))
        cut = (tuple(slots.shape), 0)
        return cls._start(qkv, padding, logits, cut, _tables(slots, num_tokens, batch), dtype)

    @classmethod
    def _start(
        cls,
        qkv: QKV,
        padding: QKV,
        logits: Logits,
        cut: tuple[tuple[int, int], int],
        tables: tuple[Tensor, Tensor],
        dtype: torch.dtype | None,
    ) -> tuple[WindowedAttention, Tensor]:
        batch, heads, num_tokens, dim = qkv.q.shape
        memory = torch.empty(
            batch, num_tokens + 1, 3, heads, dim, dtype=dtype or qkv.q.dtype, device=qkv.q.device
        )
        memory[:, :-1], memory[:, -1:] = _by_token(qkv), _by_token(padding)
        slots, window_of = tables
        attention = cls(
            qkv=memory,
            dtype=qkv.q.dtype,
            errors=torch.zeros(batch, num_tokens, device=memory.device),
            slots=slots.to(memory.device),
            window_of=window_of.to(memory.device),
            logits=logits,
            grid_size=cut[0],
            window_size=cut[1],
        )
        out = qkv.q.new_empty(batch, num_tokens + 1, heads * dim)
        attention.attend(out, None)
        return attention, out[:, :-1]

    def move(self, first: tuple[int, int]) -> None:
        """Rebuild the windows for a view that moved to row and column ``first`` of the scene."""
        slots, window_of = _cut(self.grid_size, self.window_size, first, len(self.qkv))
        self.slots = slots.to(self.qkv.device)
        self.window_of = window_of.to(self.qkv.device)
        self.cut_anew = True

    def take(self, new: QKV, selection: Selection, next_gate: TokenGate) -> WindowsAttended:
        """Attend over the windows of a later frame that have changed tokens.

        Args:
            new: Queries, keys and values of the selected tokens, each (B, h, M, D).
            selection: The selected tokens.
            next_gate: Gate before the output projection.
        """
        if selection.everything:
            for part, values in zip(self.qkv[:, :-1].unbind(2), new):
                part.copy_(values.transpose(1, 2))
        else:
            selection.put(self.qkv[:, :-1].flatten(2), _by_token(new).flatten(2))
        shape = *self.qkv.shape[:2], self.qkv.shape[3] * self.qkv.shape[4]
        out = self.qkv.new_empty(shape, dtype=self.dtype)
        touched = None if self.cut_anew else self._touched(selection, next_gate)
        self.cut_anew = False
        if touched is not None:
            self.attend(out, touched.nonzero()[:, 0], next_gate.reference)
        else:
            self.attend(out, None)
            self.errors = token_errors(next_gate.reference, lambda block: out[:, :-1][:, block])
        return WindowsAttended(self, out, touched)

    def _touched(self, selection: Selection, next_gate: TokenGate) -> Tensor | None:
        """The windows with changed tokens, (B * W,) bool; None for all."""
        # Reading the windows from the device costs more than computing all of them; a gate
        # with the reference last_frame needs all windows.
        if next_gate.follows or not reading_is_free(selection.index.device):
            return None
        touched = torch.zeros(len(self.slots), dtype=torch.bool)
        touched[self.window_of.gather(1, selection.index)] = True
        return None if touched.all() else touched

    def attend(self, out: Tensor, windows: Tensor | None, reference: Tensor | None = None) -> None:
        """Attend within windows.

        Args:
            out: (B, N + 1, C), changed in place.
            windows: Indices among B * W; None for all.
            reference: (B, N, C); if given, the errors of these windows' tokens are stored.
        """
        if windows is not None and not len(windows):
            return
        slots = self.slots if windows is None else self.slots.index_select(0, windows)
        logits, step, qkv = self.logits, len(slots), self.qkv
        compiled = can_attend(qkv) and can_run(out)
        if compiled:
            rows_h, rows_w, _ = logits.rel_pos or (None, None, None)
            attend_windows(qkv, slots, out, logits.scale, rows_h, rows_w)
        if out.device.type == "cpu":
            step = CPU_WINDOWS_NUMBERS // (slots.shape[1] * qkv[0, 0].numel())
        for part in slots.split(max(step, 1)):
            rows = part.flatten()
            if not compiled:
                # (windows * T, 3, h, D) -> 3 x (windows, h, T, D)
                cut = qkv.flatten(0, 1).index_select(0, rows).unflatten(0, part.shape)
                q, k, v = cut.to(self.dtype).permute(2, 0, 3, 1, 4)
                attended = dense_attention(q, k, v, logits.scale, logits.rel_pos)
                attended = attended.transpose(1, 2).reshape(-1, out.shape[-1])
                out.flatten(0, 1).index_copy_(0, rows, attended)
            if reference is not None:
                self._note_errors(rows, out, reference)

    def _note_errors(self, rows: Tensor, out: Tensor, reference: Tensor) -> None:
        """Store norms of ``out - reference`` (B, N, C) for rows that are not padding."""
        per_image = self.qkv.shape[1]
        rows = rows[rows % per_image < per_image - 1]
        tokens = rows - rows.div(per_image, rounding_mode="floor")  # images have no padding row
        if can_run(out, reference):
            flat = self.errors.view(-1), reference.flatten(0, 1), out.flatten(0, 1)[None]
            output_errors(*flat, None, tokens, rows)
            return
        attended = out.flatten(0, 1).index_select(0, rows).to(reference.dtype)
        difference = reference.flatten(0, 1).index_select(0, tokens) - attended
        self.errors.view(-1).index_copy_(0, tokens, norms(difference))


@dataclass
class WindowsAttended:
    """Output of attention in one frame, as far as it was computed.

    Attributes:
        attention: State of the block's attention.
        out: (B, N + 1, C), valid in the computed windows.
        touched: (B * W,) bool, the computed windows; None for all.
    """

    attention: WindowedAttention
    out: Tensor
    touched: Tensor | None

    @property
    def errors(self) -> Tensor:
        """(B, N) norms of the difference to the reference of the next gate."""
        return self.attention.errors

    def tokens(self, selection: Selection) -> Tensor:
        """The selected tokens (B, M, C), which pass the next gate.

        A token may pass later than its window changed; its window is then computed now.
        """
        if self.touched is not None:
            wanted = torch.zeros_like(self.touched)
            wanted[self.attention.window_of.gather(1, selection.index)] = True
            self.attention.attend(self.out, (wanted & ~self.touched).nonzero()[:, 0])
        # An unchanged window keeps its errors, except for tokens that now pass
        errors = self.attention.errors.unsqueeze(-1)
        selection.put(errors, errors.new_zeros(*selection.index.shape, 1))
        return selection.gather(self.out[:, :-1])

    def block(self, rows: slice) -> Tensor:
        """Consecutive tokens (B, n, C); all windows must have been computed."""
        return self.out[:, :-1][:, rows]


def _cut(
    grid_size: tuple[int, int], window_size: int, first: tuple[int, int], batch: int
) -> tuple[Tensor, Tensor]:
    """The tables ``slots`` and ``window_of`` of :class:`WindowedAttention`."""
    slots = window_slots(grid_size, window_size, first)
    return _tables(slots, grid_size[0] * grid_size[1], batch)


def _tables(slots: Tensor, num_tokens: int, batch: int) -> tuple[Tensor, Tensor]:
    """The tables of a batch from the slots (W, T) of one image."""
    windows = torch.arange(slots.shape[0])
    window_of = torch.empty(num_tokens + 1, dtype=torch.int64)
    window_of[slots.flatten()] = windows.repeat_interleave(slots.shape[1])
    entry = torch.arange(batch)[:, None]
    own = (slots + entry[..., None] * (num_tokens + 1)).flatten(0, 1)
    return own, window_of[:-1] + entry * slots.shape[0]


def _by_token(qkv: QKV) -> Tensor:
    """Three times (B, h, M, D) -> (B, M, 3, h, D)."""
    return torch.stack([t.transpose(1, 2) for t in qkv], 2)
