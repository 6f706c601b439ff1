"""Report of a conversion: what was done with each tensor."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

KINDS = ("used", "renamed", "resized", "left over")


@dataclass(frozen=True)
class Entry:
    """One tensor of the file.

    Attributes:
        name: Name in the file.
        kind: One of :data:`KINDS`.
        targets: Names in the result.
        note: How the tensor was changed, or why it was left over.
    """

    name: str
    kind: str
    targets: tuple[str, ...] = ()
    note: str = ""

    def __str__(self) -> str:
        """Return the entry as one line."""
        arrow = f" -> {', '.join(self.targets)}" if self.kind in ("renamed", "resized") else ""
        return f"{self.kind:9}  {self.name}{arrow}{f' ({self.note})' if self.note else ''}"


@dataclass
class Report:
    """The recognised layout and what was done with each tensor.

    Attributes:
        layout: Name of the layout.
        title: Description of the layout.
        entries: One entry per tensor of the file, in the file's order.
        settings: Values that a config must have for these weights.
        classes: Class names, if the layout defines them.
    """

    layout: str
    title: str
    entries: list[Entry] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()

    def of_kind(self, kind: str) -> list[Entry]:
        """Return the entries of a kind."""
        return [entry for entry in self.entries if entry.kind == kind]

    def lines(self) -> Iterable[str]:
        """Yield the lines of the report."""
        yield f"layout: {self.layout} ({self.title})"
        for entry in self.entries:
            yield str(entry)
        for key, value in self.settings.items():
            yield f"the config must have: {key}={value!r}"
        yield ", ".join(f"{len(self.of_kind(kind))} {kind}" for kind in KINDS)
