"""Sessions: the state of one page in one browser."""

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

MOST = 32  # most open sessions
_IDLE = 3600  # seconds after which an unused session is closed when another one is opened
_ROWS = 10_000  # most rows of the table, one per frame
_START = Target("share", 0.5)


class Session:
    """One page in one browser.

    Args:
        browser: The cookie of the browser.
        page: gradio's id of the page.
        folder: Folder that will hold the session's own folder, which is removed with the session.

    Attributes:
        token: Identifies the session; 256 random bits.
        clip: Title and file of the uploaded clip.
        said: A message about the upload, and whether it was refused.
        target: The budget; it can change while a clip is played.
        rows: The table's rows of the last frames.
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
        """Start a run, which ends the previous one; returns the run's number."""
        self.rows.clear()
        self._run += 1
        return self._run

    def stop(self) -> None:
        """End the current run."""
        self._run += 1

    def goes_on(self, run: int) -> bool:
        """Whether a run has not ended."""
        return run == self._run

    def note(self, run: int, frame: DemoFrame) -> None:
        """Add a computed frame of a run to the table."""
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
        """A new path for a clip, in the session's own folder."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self.folder / secrets.token_hex(8)

    def take(self, title: str, path: Path) -> None:
        """Replace the uploaded clip."""
        before, self.clip = self.clip, (title, path)
        self.said = (f"{title} is ready; press play.", False)
        # A run that plays the old clip has the file open and can go on reading it
        if before is not None:
            before[1].unlink(missing_ok=True)

    def close(self) -> None:
        """End the run, and remove the clip."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class Sessions:
    """All sessions of a server.

    Args:
        folder: Folder for their clips.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._lock = folder, threading.Lock()
        self._open: dict[str, Session] = {}

    def __len__(self) -> int:
        return len(self._open)

    def open(self, browser: str, page: str) -> Session:
        """Open a session.

        Raises:
            UserError: The limit of open sessions is reached.
        """
        session = Session(browser, page, self._folder)
        with self._lock:
            idle = time.monotonic() - _IDLE
            for token in [t for t, s in self._open.items() if s.used < idle]:
                self._open.pop(token).close()
            if len(self._open) >= MOST:
                raise UserError(f"{MOST} pages are open, which is the limit; try again later.")
            self._open[session.token] = session
        return session

    def get(self, token: Any, browser: str | None) -> Session:
        """The session of a token, for its browser.

        Raises:
            UserError: There is no such session, or it is another browser's.
        """
        session = self._open.get(token) if isinstance(token, str) else None
        # One message for both, so that it does not reveal whether the session exists
        if session is None or browser is None or session.browser != browser:
            raise UserError("this page's session has ended; reload the page.")
        session.used = time.monotonic()
        return session

    def close(self, page: str, browser: str | None) -> None:
        """Close a page's sessions, if they are the browser's."""
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
