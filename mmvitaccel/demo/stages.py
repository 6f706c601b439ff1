"""Numbered stages of a demonstration in the terminal."""

from __future__ import annotations

from rich.console import Console


class Stages:
    """Announces the stages of a demonstration.

    Args:
        console: Where they are printed.
        total: Number of stages.
    """

    def __init__(self, console: Console, total: int) -> None:
        self.console, self.total = console, total
        self._current = 0

    def announce(self, text: str) -> None:
        """Print the number and name of the stage that starts."""
        self._current += 1
        line = f"\n[{self._current}/{self.total}] {text}"
        self.console.print(line, style="bold", markup=False, highlight=False, soft_wrap=True)


def clock(seconds: float) -> str:
    """Return a duration as minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d} min"
