"""Arguments that every metric has: how ranks exchange results, and how figures are named."""

from __future__ import annotations

from typing import Any

from mmvitaccel.arguments import one_of, path, refuse


def exchange(
    owner: str, collect_device: str, prefix: str | None, collect_dir: str | None = None
) -> dict[str, Any]:
    """The arguments of mmengine's ``BaseMetric``, checked.

    Args:
        owner: The metric.
        collect_device: ``cpu`` or ``gpu``.
        prefix: Of the names reported; None for the metric's own.
        collect_dir: Folder shared by the ranks, or None.

    Raises:
        ValueError: One is of another kind.
    """
    if prefix is not None and not isinstance(prefix, str):
        refuse(owner, "prefix", prefix, "a text, or None", wrong_type=True)
    return dict(
        collect_device=one_of(owner, "collect_device", collect_device, ("cpu", "gpu")),
        prefix=prefix,
        collect_dir=path(owner, "collect_dir", collect_dir, or_none=True),
    )
