"""What cannot become a fixed graph says so, to every exporter alike."""

from __future__ import annotations

import torch

# reason: torch.compiler got it in torch 2.7; before, an export by torch.export looks like a compile
_is_exporting = getattr(torch.compiler, "is_exporting", lambda: False)


def why_not_exported(method: str) -> str:
    """The sentence for a method that remembers frames."""
    return (
        f"{method} is not exported: what it computes depends on the frames before and on which of "
        "their tokens changed, which no fixed graph holds; remove it and export the plain model."
    )


def refuse_export(reason: str) -> None:
    """Stop ``torch.jit.trace``, ``torch.export`` and both ONNX exporters.

    Raises:
        RuntimeError: One of them is at work; the message is ``reason``.
    """
    if torch.jit.is_tracing() or torch.onnx.is_in_onnx_export() or _is_exporting():
        raise RuntimeError(reason)
