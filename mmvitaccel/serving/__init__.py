"""Serving a model to many streams and over many videos, with Ray Serve and Ray Data around it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

# Imported on first access, so that a Ray worker imports only what it needs.
_HOME = {
    "Answer": "mmvitaccel.serving.answers",
    "DetectorModel": "mmvitaccel.serving.detector_model",
    "FrameLimits": "mmvitaccel.serving.frames",
    "Refused": "mmvitaccel.serving.answers",
    "StreamWorker": "mmvitaccel.serving.worker",
    "TensorModel": "mmvitaccel.serving.tensor_model",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    """Import a public name on first access."""
    if name not in _HOME:
        raise AttributeError(f"module 'mmvitaccel.serving' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
