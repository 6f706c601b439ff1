"""Streams behind Ray Serve: each sticks to the replica that remembers it.

``python -m mmvitaccel.serving.ray_app SERVICE.yaml`` starts it, reachable from this machine only.
"""

from __future__ import annotations

from typing import Any

__all__ = ["StreamClient", "build"]


def __getattr__(name: str) -> Any:
    """Import what needs ray on first access."""
    if name == "build":
        from mmvitaccel.serving.ray_app.app import build

        return build
    if name == "StreamClient":
        from mmvitaccel.serving.ray_app.client import StreamClient

        return StreamClient
    raise AttributeError(f"module 'mmvitaccel.serving.ray_app' has no attribute {name!r}")
