"""Gates and buffers (Eventful Transformers, arXiv 2308.13494, section 4.1).

A gate remembers each token as it was when it last passed (the reference u). The error e = u - c
of the current token c says whether it is worth recomputing. The layers after a gate compute only
the tokens that pass; their buffer holds the results of all tokens. All of it is plain state of one
stream: nothing here is a module or a registered buffer.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mmvitaccel.core.eventful.gates.selection import Selection
from mmvitaccel.core.eventful.gates.token_errors import norms, token_blocks

REFERENCES = ("last_passed", "last_frame")


class TokenGate:
    """Remembers the tokens as a policy last let them through.

    Args:
        x: Tokens of the first frame (B, N, C), all of which pass. The gate keeps this
            tensor and changes it in place.
        dtype: In which they are kept; None for their own.
        reference: ``last_passed`` compares with the token as it last passed; ``last_frame`` with
            the token of the frame before, passed or not, as STGT does (a baseline of the paper:
            slow changes are never noticed).
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
        """Note that the selected tokens pass.

        Args:
            selection: What a policy chose.
            passed: These tokens, (B, k, C); where all pass, they belong to the gate afterwards.
            tokens: Gives any tokens, (B, n, C); asked by a gate that follows every frame.
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
        """See :func:`left_out`, with the norms of what this gate remembers."""
        return left_out(selection, errors, self.squares)


def squared_norms(x: Tensor) -> Tensor:
    """Squared norms of tokens (B, N, C), (B, N) in single precision."""
    return norms(x).square_()


def left_out(selection: Selection, errors: Tensor, squares: Tensor) -> Tensor:
    """What a gate left out of a frame: the squared error that did not pass, as a share.

    0 where all that changed passed; 1 where the error is as large as the tokens themselves. The
    tokens' norms are those with which they last passed, which the gate knows: a frame's own would
    take another pass over all of them.

    Args:
        selection: What passed.
        errors: (B, N) norms of the errors by which it was chosen.
        squares: (B, N) squared norms of the tokens.

    Returns:
        () float32, over the whole batch.
    """
    if selection.everything:
        return errors.new_zeros(())
    passed = torch.zeros((), dtype=errors.dtype, device=errors.device)
    if selection.chosen is not None:  # those that only fill a row up did not pass
        passed = torch.where(selection.chosen, passed, errors.gather(1, selection.index))
    else:
        passed = passed.expand(selection.index.shape)
    remaining = errors.scatter(1, selection.index, passed)
    smallest = torch.finfo(torch.float32).tiny
    return remaining.square().sum() / squares.sum().clamp_min(smallest)


class TokenBuffer:
    """Results of all tokens, of which some are replaced in each frame.

    Args:
        values: Results of the first frame, (B, N, C) or (B, heads, N, D). The buffer keeps
            this tensor and changes it in place.
        dtype: In which they are kept; None for their own.
    """

    def __init__(self, values: Tensor, dtype: torch.dtype | None = None) -> None:
        self.memory = values.to(dtype or values.dtype)

    def update(self, selection: Selection, values: Tensor) -> Tensor:
        """Put in the results (B, k, C) of the tokens that passed; returns those of all.

        Where all tokens passed, ``values`` belong to the buffer afterwards.
        """
        if selection.everything and values.dtype == self.memory.dtype:
            self.memory = values
        else:
            selection.put(self.memory, values)
        return self.memory


class DeltaGate:
    """A gate that also gives the difference to what passed before (section 4.2).

    Args:
        x: (B, ..., N, C) of the first frame; belongs to the gate afterwards.
        dim: Along which tokens lie: -2 for rows, -1 for the columns of an attention matrix.
    """

    def __init__(self, x: Tensor, dim: int = -2) -> None:
        self.reference = x
        self.dim = dim

    def let_through(self, index: Tensor, current: Tensor) -> tuple[Tensor, Tensor]:
        """Let the tokens at ``index`` through.

        Args:
            index: (B, ..., k, C) or (B, ..., N, k), expanded as ``gather`` wants it.
            current: The current values at ``index``, of the same shape.

        Returns:
            What was there before, and the difference to it.
        """
        before = self.reference.gather(self.dim, index)
        self.reference.scatter_(self.dim, index, current)
        return before, current - before
