"""Gates and buffers (Eventful Transformers, arXiv 2308.13494, section 4.1).

A gate stores each token as it was when it last passed (the reference u). The error e = u - c of the
current token c measures its change. The layers after a gate compute only the tokens that pass; a
buffer holds the results of all tokens. Gates and buffers are plain objects of one stream, not
modules or registered buffers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mmvitaccel.core.eventful.gates.selection import Selection
from mmvitaccel.core.eventful.gates.token_errors import norms, token_blocks

REFERENCES = ("last_passed", "last_frame")


class TokenGate:
    """Stores the tokens as they last passed.

    Args:
        x: Tokens of the first frame (B, N, C), all of which pass. The gate keeps this tensor and
            changes it in place.
        dtype: Dtype for storage; None for that of the tokens.
        reference: ``last_passed`` compares with the token as it last passed; ``last_frame`` with
            the token of the previous frame, as STGT does (a baseline of the paper, which never
            detects slow changes).
    """

    def __init__(
        self, x: Tensor, reference: str = "last_passed", dtype: torch.dtype | None = None
    ) -> None:
        self.reference = x.to(dtype or x.dtype)
        self.follows = reference == "last_frame"
        self.squares = squared_norms(x)

    def let_through(
        self, selection: Selection, passed: Tensor, tokens: Callable[[slice], Tensor]
    ) -> None:
        """Store the selected tokens as the new reference.

        Args:
            selection: The selection of a policy.
            passed: The selected tokens (B, k, C); if all pass, the gate takes ownership.
            tokens: Function that returns blocks of tokens (B, n, C); used with ``last_frame``.
        """
        if self.follows:
            for block in token_blocks(self.reference):
                self.reference[:, block] = tokens(block)
            self.squares = squared_norms(self.reference)
            return
        selection.put(self.squares.unsqueeze(-1), squared_norms(passed).unsqueeze(-1))
        if selection.everything and passed.dtype == self.reference.dtype:
            self.reference = passed
        else:
            selection.put(self.reference, passed)

    def left_out(self, selection: Selection, errors: Tensor) -> Tensor:
        """Call :func:`left_out` with the norms of the reference."""
        return left_out(selection, errors, self.squares)


def squared_norms(x: Tensor) -> Tensor:
    """Squared norms of tokens (B, N, C), (B, N) in single precision."""
    return norms(x).square_()


def left_out(selection: Selection, errors: Tensor, squares: Tensor) -> Tensor:
    """The squared error that did not pass a gate, relative to the squared norm of all tokens.

    The value is 0 if all changed tokens passed, and 1 if the error is as large as the tokens
    themselves. The norms are those of the reference; norms of the current frame would need another
    pass over the tokens.

    Args:
        selection: What passed.
        errors: (B, N) norms of the errors used for the selection.
        squares: (B, N) squared norms of the tokens.

    Returns:
        () float32, over the whole batch.
    """
    if selection.everything:
        return errors.new_zeros(())
    passed = torch.zeros((), dtype=errors.dtype, device=errors.device)
    if selection.chosen is not None:  # padding entries of ragged rows did not pass
        passed = torch.where(selection.chosen, passed, errors.gather(1, selection.index))
    else:
        passed = passed.expand(selection.index.shape)
    remaining = errors.scatter(1, selection.index, passed)
    smallest = torch.finfo(torch.float32).tiny
    return remaining.square().sum() / squares.sum().clamp_min(smallest)


class TokenBuffer:
    """Results of all tokens, some of which are replaced in each frame.

    Args:
        values: Results of the first frame, (B, N, C) or (B, heads, N, D). The buffer keeps
            this tensor and changes it in place.
        dtype: Dtype for storage; None for that of the values.
    """

    def __init__(self, values: Tensor, dtype: torch.dtype | None = None) -> None:
        self.memory = values.to(dtype or values.dtype)

    def update(self, selection: Selection, values: Tensor) -> Tensor:
        """Store the results (B, k, C) of the tokens that passed; returns those of all tokens.

        If all tokens passed, the buffer takes ownership of ``values``.
        """
        if selection.everything and values.dtype == self.memory.dtype:
            self.memory = values
        else:
            selection.put(self.memory, values)
        return self.memory


class DeltaGate:
    """A gate that also returns the difference to the previous values (section 4.2).

    Args:
        x: (B, ..., N, C) of the first frame; the gate takes ownership.
        dim: Dimension of the tokens: -2 for rows, -1 for the columns of an attention matrix.
    """

    def __init__(self, x: Tensor, dim: int = -2) -> None:
        self.reference = x
        self.dim = dim

    def let_through(self, index: Tensor, current: Tensor) -> tuple[Tensor, Tensor]:
        """Update the tokens at ``index``.

        Args:
            index: (B, ..., k, C) or (B, ..., N, k), expanded as for ``gather``.
            current: The current values at ``index``, of the same shape.

        Returns:
            The previous values, and the difference to them.
        """
        before = self.reference.gather(self.dim, index)
        self.reference.scatter_(self.dim, index, current)
        return before, current - before
