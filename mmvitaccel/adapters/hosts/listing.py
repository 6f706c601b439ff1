"""Table of the supported families for the documentation."""

from __future__ import annotations

from collections import defaultdict

from mmvitaccel.adapters.base import ViTAdapter
from mmvitaccel.adapters.hosts.find import ADAPTERS

THROUGH, WITHIN, ALONE = (
    "ToMe through the network; Eventful",
    "ToMe within each block; Eventful",
    "ToMe alone",
)


def serves_eventful(adapter: ViTAdapter) -> bool:
    """Whether the family processes frames and has complete blocks."""
    return not adapter.takes_clip and all(spec.mlp is not None for spec in adapter.specs)


def how(adapter: ViTAdapter) -> str:
    """Return how the family is supported, as one of the table's columns."""
    if not serves_eventful(adapter):
        return ALONE
    return WITHIN if any(spec.keeps_grid for spec in adapter.specs) else THROUGH


def table_of_hosts() -> str:
    """Return a Markdown table of the supported families, with a row for each package."""
    columns = (THROUGH, WITHIN, ALONE)
    packages: defaultdict[str, dict[str, list[str]]] = defaultdict(lambda: {c: [] for c in columns})
    for adapter in ADAPTERS:
        package, _, family = adapter.name.partition(" ")
        known = f" ({', '.join(adapter.also)})" if adapter.also else ""
        packages[package][how(adapter)].append(family + known)
    rows = [("Package", *columns), ("---",) * (1 + len(columns))]
    rows += [
        (package, *(", ".join(cell) for cell in cells.values()))
        for package, cells in packages.items()
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
