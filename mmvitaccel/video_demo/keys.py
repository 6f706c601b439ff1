"""Reads keys from the terminal without blocking."""

from __future__ import annotations

import os
import select
import sys
from types import TracebackType

try:
    import termios
    import tty
except ImportError:  # Windows
    termios = None  # type: ignore[assignment]


class Keys:
    """Reads keys without blocking; without a terminal, none is ever pressed.

    A context manager: on exit, also after an error, it restores the terminal's settings. Ctrl-C
    keeps its meaning.
    """

    def __init__(self) -> None:
        self._before: list | None = None

    @property
    def listening(self) -> bool:
        """Whether there is a terminal to read from."""
        return self._before is not None

    def __enter__(self) -> Keys:
        if termios is not None and sys.stdin is not None and sys.stdin.isatty():
            self._before = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._before is not None:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)
            self._before = None

    def pressed(self) -> str:
        """The keys pressed since the last call, in order."""
        if not self.listening or not select.select([sys.stdin], [], [], 0)[0]:
            return ""
        # select() does not see what is in the buffer of sys.stdin, so read the descriptor
        return os.read(sys.stdin.fileno(), 64).decode(errors="ignore")
