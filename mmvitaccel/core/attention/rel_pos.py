"""Decomposed relative positions (MViTv2, arXiv 2112.01526, section 4.1; as ViTDet uses them).

The logit of query i and key j gets ``q_i . R_h[y_i - y_j] + q_i . R_w[x_i - x_j]``, with the
query *before* it is scaled. A row of the table belongs to one offset: ``y_i - y_j + size - 1``.

These are H + W values per query instead of N. The terms are stored in this form, (B, heads, N, H)
and (B, heads, N, W), and expanded over all keys only for the current block of rows.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

REL_POS_RESIZES = ("table", "pairs")


class PositionTerms(NamedTuple):
    """Terms that relative positions add to the logits, separately for the two axes.

    Attributes:
        height: (B, heads, N, key rows).
        width: (B, heads, N, key columns).
    """

    height: Tensor
    width: Tensor

    def spread(self) -> Tensor:
        """The bias over all keys in row-major order, (B, heads, N, key rows * key columns)."""
        return (self.height.unsqueeze(-1) + self.width.unsqueeze(-2)).flatten(-2)

    def at(self, rows: Tensor, columns: Tensor) -> Tensor:
        """The bias of some keys.

        Args:
            rows: (K,) grid row of each key, int64.
            columns: (K,) grid column of each key, int64.

        Returns:
            (B, heads, N, K).
        """
        return self.height.index_select(-1, rows) + self.width.index_select(-1, columns)


def resize_table(table: Tensor, size: int) -> Tensor:
    """The table for ``size`` positions per axis, (2 * size - 1, D), interpolated if necessary."""
    rows = 2 * size - 1
    if table.shape[0] == rows:
        return table
    # (L, D) -> (1, D, L) -> (1, D, rows) -> (rows, D)
    resized = F.interpolate(table.t()[None].float(), size=rows, mode="linear")
    return resized[0].t().to(table.dtype)


def offset_rows(table: Tensor, size: int, resize: str = "table") -> Tensor:
    """The row of every pair of positions on one axis.

    Args:
        table: (L, D), of any length.
        size: Positions on this axis.
        resize: Interpolation for a table of another size: ``'table'`` interpolates the table
            linearly (detectron2, mmdet), ``'pairs'`` the rows of all pairs bicubically (the code of
            the Eventful Transformers paper). The results differ slightly.

    Returns:
        (size, size, D): [query, key] is row ``query - key + size - 1``.
    """
    own = (table.shape[0] + 1) // 2
    if resize == "pairs" and own != size:
        rows = offset_rows(table, own).permute(2, 0, 1)[None]  # (own, own, D) -> (1, D, own, own)
        rows = F.interpolate(rows.float(), (size, size), mode="bicubic", align_corners=False)
        return rows[0].permute(1, 2, 0).to(table.dtype)
    position = torch.arange(size, device=table.device)
    return resize_table(table, size)[position[:, None] - position[None, :] + size - 1]


class RelPos(NamedTuple):
    """Relative positions of some queries of a grid.

    Attributes:
        rows_h: Result of :func:`offset_rows`, (H, key rows, D).
        rows_w: The same for columns, (W, key columns, D).
        place: (B, R), positions of the queries in row-major order; None for all positions in order.
    """

    rows_h: Tensor
    rows_w: Tensor
    place: Tensor | None = None

    def terms(self, q: Tensor) -> PositionTerms:
        """Terms for the logits of the unscaled queries (B, heads, R, D)."""
        if self.place is None:
            return position_terms(q, self.rows_h, self.rows_w)
        y, x = row_and_column(self.place, self.rows_w.shape[0])
        by_row = q.transpose(1, 2)  # (B, R, heads, D)
        # (B, R, heads, D) x (B, R, D, key rows) -> (B, heads, R, key rows)
        height, width = (
            (by_row @ rows[at].transpose(2, 3).to(q.dtype)).transpose(1, 2)
            for rows, at in ((self.rows_h, y), (self.rows_w, x))
        )
        return PositionTerms(height, width)


def row_and_column(place: Tensor, columns: int) -> tuple[Tensor, Tensor]:
    """Row and column of row-major positions in a grid with ``columns`` columns."""
    return place.div(columns, rounding_mode="floor"), place.remainder(columns)


def pool_rows(rows: Tensor, pool_size: int) -> Tensor:
    """Rows of keys that were average-pooled on this axis.

    A pooled key's row is the mean of its positions' rows, like pooling a key with a one-hot
    position.

    Args:
        rows: (queries, keys, D) from :func:`offset_rows`.
        pool_size: Keys in a cell; the last cell may have fewer.

    Returns:
        (queries, ceil(keys / pool_size), D).
    """
    # (queries, keys, D) -> (queries, D, keys) -> (queries, D, cells) -> (queries, cells, D)
    pooled = F.avg_pool1d(rows.transpose(1, 2), pool_size, ceil_mode=True, count_include_pad=False)
    return pooled.transpose(1, 2)


def position_terms(q: Tensor, rows_h: Tensor, rows_w: Tensor) -> PositionTerms:
    """Terms of all queries of a grid.

    Args:
        q: (B, heads, H * W, D), not scaled.
        rows_h: (H, key rows, D) from :func:`offset_rows`.
        rows_w: (W, key columns, D).
    """
    batch, heads, _, dim = q.shape
    height, width = rows_h.shape[0], rows_w.shape[0]
    q = q.reshape(batch, heads, height, width, dim)
    # (B, heads, H, W, D) x (H, D, key rows) -> (B, heads, H, W, key rows)
    by_row = q @ rows_h.transpose(1, 2).to(q.dtype)
    # (B, heads, W, H, D) x (W, D, key columns) -> (B, heads, H, W, key columns)
    by_column = (q.transpose(2, 3) @ rows_w.transpose(1, 2).to(q.dtype)).transpose(2, 3)
    return PositionTerms(by_row.flatten(2, 3), by_column.flatten(2, 3))
