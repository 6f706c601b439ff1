"""Norms of the errors e = u - c for the selection of tokens (arXiv 2308.13494, section 4.1).

Shapes: B batch, N tokens, C channels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mmvitaccel.core.eventful.gates.output import Output
from mmvitaccel.core.kernels.errors import normed_errors, output_errors
from mmvitaccel.core.kernels.operators import can_run

# Number of values in a block of tokens, which stays in the cache of a CPU between steps.
CPU_BLOCK_NUMBERS = 2**18


def norms(x: Tensor) -> Tensor:
    """Norms of tokens (..., C) as (...) float32; float64 is summed in double precision."""
    dtype = None if x.dtype == torch.float64 else torch.float32  # double precision is not reduced
    return torch.linalg.vector_norm(x, dim=-1, dtype=dtype).float()


def token_errors(reference: Tensor, tokens: Callable[[slice], Tensor]) -> Tensor:
    """Norms of u - c, see :func:`norms`.

    c is rounded to the dtype of u, so unchanged tokens have no error.

    Args:
        reference: u, (B, N, C).
        tokens: Function that returns c for a block of tokens, (B, n, C); called block by block to
            avoid a full-size tensor.

    Returns:
        (B, N).
    """
    errors = []
    for block in token_blocks(reference):
        errors.append(norms(reference[:, block] - tokens(block).to(reference.dtype)))
    return torch.cat(errors, 1)


def token_blocks(x: Tensor) -> list[slice]:
    """Split the tokens of (B, N, C) into blocks: several on a CPU, one on other devices."""
    batch, num_tokens, channels = x.shape
    step = num_tokens
    if x.device.type == "cpu":
        step = max(CPU_BLOCK_NUMBERS // (batch * channels), 1)
    return [slice(first, first + step) for first in range(0, num_tokens, max(step, 1))]


def errors_of_sum(
    reference: Tensor, x: Tensor, branch: Tensor | None, norm: Callable[[Tensor], Tensor] | None
) -> tuple[Tensor, Tensor]:
    """Norms of u - norm(x + branch), with few passes over memory.

    Args:
        reference: u, (B, N, C).
        x: (B, N, C).
        branch: (B, N, C), or None.
        norm: Applied to tokens (B, n, C), each independently, or None.

    Returns:
        Norms (B, N), and x + branch, which is ``x`` itself without a branch.
    """
    plain, affine = _is_plain(norm, x), (None, None, None)
    if plain:
        affine = norm.eps, norm.weight, norm.bias
    given = [t for t in (reference, x, branch, *affine[1:]) if t is not None]
    if (norm is None or plain) and can_run(*given):
        errors, total = normed_errors(reference, x, branch, *affine)
        return errors, x if branch is None else total
    look = norm or (lambda tokens: tokens)
    if branch is None:
        return token_errors(reference, lambda block: look(x[:, block])), x
    total = torch.empty(x.shape, dtype=torch.result_type(x, branch), device=x.device)

    def tokens(block: slice) -> Tensor:
        return look(torch.add(x[:, block], branch[:, block], out=total[:, block]))

    return token_errors(reference, tokens), total


def errors_of_output(reference: Tensor, out: Output) -> Tensor:
    """Norms (B, N) of u - attention output, with u (B, N, C)."""
    given = [t for t in (reference, out.numerator, out.denominator) if t is not None]
    if not can_run(*given) or not reference.is_contiguous():
        return token_errors(reference, out.block)
    errors = torch.empty(reference.shape[:2])
    for b in range(len(errors)):
        denominator = None if out.denominator is None else out.denominator[b]
        output_errors(errors[b], reference[b], out.numerator[b], denominator, None, None)
    return errors


def _is_plain(norm: Callable[[Tensor], Tensor] | None, x: Tensor) -> bool:
    """Whether a norm is torch's LayerNorm over the last axis, without hooks."""
    return (
        type(norm) is nn.LayerNorm
        and norm.normalized_shape == x.shape[2:]
        and not (norm._forward_hooks or norm._forward_pre_hooks or "forward" in norm.__dict__)
    )
