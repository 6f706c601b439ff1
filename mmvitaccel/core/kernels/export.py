"""Errors for methods that cannot be exported as a fixed graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

# torch.compiler got it in torch 2.7; before, an export by torch.export looks like a compile
_is_exporting = getattr(torch.compiler, "is_exporting", lambda: False)


def why_not_exported(method: str) -> str:
    """Message for a method with state between frames."""
    return (
        f"{method} cannot be exported: its computation depends on previous frames and on the "
        f"tokens that changed, which a fixed graph cannot represent; remove it and export the "
        f"plain model."
    )


def refuse_symbols(method: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Stop ``torch.fx.symbolic_trace``, whose inputs have no shapes.

    Raises:
        RuntimeError: It runs.
    """
    if any(type(value).__name__ == "Proxy" for value in (*args, *kwargs.values())):
        raise RuntimeError(
            f"{method} cannot be traced by torch.fx, as by torchvision's create_feature_extractor: "
            "its steps depend on shapes and values; remove it, or take features by forward hooks."
        )


def refuse_export(reason: str) -> None:
    """Stop ``torch.jit.trace``, ``torch.export`` and both ONNX exporters.

    Raises:
        RuntimeError: An export is running; the message is ``reason``.
    """
    if torch.jit.is_tracing() or torch.onnx.is_in_onnx_export() or _is_exporting():
        raise RuntimeError(reason)
