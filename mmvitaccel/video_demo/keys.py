"""Keys that are pressed in the terminal while a program runs."""

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
    """Reads keys without waiting for them; where there is no terminal, none is ever pressed.

    A ``with`` block: the terminal is as before after it, also after an error. Ctrl-C keeps its
    meaning.
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
        # reason: past the buffer of sys.stdin, of which select knows nothing
        return os.read(sys.stdin.fileno(), 64).decode(errors="ignore")
