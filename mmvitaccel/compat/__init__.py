"""Gaps of the installed OpenMMLab stack, closed before mmdet or mmaction2 is imported.

One entry, :func:`apply`, which ``import mmvitaccel`` calls. It imports neither torch nor an
OpenMMLab package: it only arranges that a module which turns out to be missing is answered for,
at the moment when somebody imports it. What is installed always comes first.
"""

from __future__ import annotations

from mmvitaccel.compat.fallback import serve_stand_ins

__all__ = ["apply"]


def apply() -> None:
    """Close every gap that this environment has; a second call changes nothing."""
    serve_stand_ins()
