"""Sessions: what each browser's page has, and nobody else."""

from __future__ import annotations

import csv
import io
import secrets
import shutil
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

from mmvitaccel.budget.target import Target
from mmvitaccel.errors import UserError
from mmvitaccel.video_demo import DemoFrame

MOST = 32  # sessions at a time
_IDLE = 3600  # seconds after which a session may make room
_ROWS = 10_000  # frames that the table has
_START = Target("share", 0.5)


class Session:
    """One page in one browser.

    Args:
        browser: The cookie of the browser.
        page: gradio's name of the page.
        folder: Of the clip that it brought; made when there is one, removed with the session.

    Attributes:
        token: Names the session; 256 random bits.
        clip: Title and file of the clip that it brought.
        said: What is to be said of that clip, and whether it was refused.
        target: The budget, also while a clip is played.
        rows: What the table says, the last frames.
    """

    def __init__(self, browser: str, page: str, folder: Path) -> None:
        self.token, self.browser, self.page = secrets.token_hex(32), browser, page
        self.folder = folder / self.token
        self.clip: tuple[str, Path] | None = None
        self.said = ("", False)
        self.target = _START
        self.rows: deque[dict[str, Any]] = deque(maxlen=_ROWS)
        self.used = time.monotonic()
        self._run = 0

    def begin(self) -> int:
        """Begin to play, which ends what was played before; returns the run's number."""
        self.rows.clear()
        self._run += 1
        return self._run

    def stop(self) -> None:
        """End what is played."""
        self._run += 1

    def goes_on(self, run: int) -> bool:
        """Whether a run has not been ended."""
        return run == self._run

    def note(self, run: int, frame: DemoFrame) -> None:
        """A frame was computed in a run."""
        self.used = time.monotonic()
        if self.goes_on(run):
            self.rows.append(frame.row())

    def table(self) -> str:
        """The rows as csv."""
        rows, text = list(self.rows), io.StringIO(newline="")
        if rows:
            writer = csv.DictWriter(text, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return text.getvalue()

    def new_file(self) -> Path:
        """A new name for a clip, in the session's own folder."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self.folder / secrets.token_hex(8)

    def take(self, title: str, path: Path) -> None:
        """Keep a clip in place of the one before."""
        before, self.clip = self.clip, (title, path)
        self.said = (f"{title} is ready; press play.", False)
        # reason: what is being played keeps the file that it has open
        if before is not None:
            before[1].unlink(missing_ok=True)

    def close(self) -> None:
        """Stop, and remove the clip."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class Sessions:
    """All sessions of a server.

    Args:
        folder: For their clips.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._lock = folder, threading.Lock()
        self._open: dict[str, Session] = {}

    def __len__(self) -> int:
        return len(self._open)

    def open(self, browser: str, page: str) -> Session:
        """A new session.

        Raises:
            UserError: There are too many.
        """
        session = Session(browser, page, self._folder)
        with self._lock:
            idle = time.monotonic() - _IDLE
            for token in [t for t, s in self._open.items() if s.used < idle]:
                self._open.pop(token).close()
            if len(self._open) >= MOST:
                raise UserError(f"{MOST} pages are open, which is all that are served; wait.")
            self._open[session.token] = session
        return session

    def get(self, token: Any, browser: str | None) -> Session:
        """The session of a token, for its browser.

        Raises:
            UserError: There is none, or it is another browser's.
        """
        session = self._open.get(token) if isinstance(token, str) else None
        # reason: in one sentence, which does not tell whether there is such a session
        if session is None or browser is None or session.browser != browser:
            raise UserError("this page's session has ended; load the page again.")
        session.used = time.monotonic()
        return session

    def close(self, page: str, browser: str | None) -> None:
        """Close what a page has, if it is the browser's."""
        with self._lock:
            ended = [s for s in self._open.values() if (s.page, s.browser) == (page, browser)]
            for session in ended:
                del self._open[session.token]
        for session in ended:
            session.close()

    def close_all(self) -> None:
        """Close every session."""
        with self._lock:
            for session in self._open.values():
                session.close()
            self._open.clear()
