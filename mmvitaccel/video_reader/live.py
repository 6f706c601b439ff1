"""Cameras and streams: pictures come at their own pace, and stop without being asked to."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mmvitaccel.video_reader.timing import Capture, Stamp, Unreadable

POLICIES = ("newest", "all")
_BUFFER = 64


@dataclass(frozen=True)
class LiveOptions:
    """How a live source is followed.

    Attributes:
        policy: ``'newest'`` leaves out what came while the last frame was worked on; ``'all'``
            keeps every frame in order, up to 64 of them waiting, and falls behind.
        reconnect: How many times in a row to connect again to a source that broke off.
        pause: Seconds before the first such attempt; n times that before the n-th.
        say: Takes a sentence when a source breaks off and when it is back.
    """

    policy: str
    reconnect: int
    say: Callable[[str], None]
    pause: float = 1.0


@dataclass(frozen=True)
class _Item:
    index: int
    came: float
    image: np.ndarray


class LiveCapture:
    """Reads a live source in a thread of its own, from the first :meth:`grab` on.

    Args:
        name: For messages.
        capture: The source, connected.
        connect: Connects to it again.
        options: How to follow it.

    Attributes:
        dropped: Frames left out so far.
        behind: Seconds from the coming of the last grabbed frame to its being grabbed.
        fallen_back: Whether as many frames waited as may.
        reconnected: How many times it came back.
    """

    def __init__(
        self, name: str, capture: Capture, connect: Callable[[], Capture], options: LiveOptions
    ) -> None:
        self.name = name
        self.options = options
        self.fps, self.count, self.duration, self.damaged = capture.fps, None, None, 0
        self.dropped = self.reconnected = 0
        self.behind = 0.0
        self.fallen_back = False
        self._capture, self._connect = capture, connect
        self._waiting: deque[_Item] = deque()
        self._changed = threading.Condition()
        self._stopped = threading.Event()
        self._over = False
        self._error: Exception | None = None
        self._came = 0  # frames so far
        self._start: float | None = None
        self._image: np.ndarray | None = None
        self._thread: threading.Thread | None = None

    def grab(self) -> Stamp | None:
        """Wait for a frame; None once the source broke off for good."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
            self._thread.start()
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._over)
            if not self._waiting:
                if self._error is not None:
                    raise self._error
                return None
            item = self._waiting.popleft()
            self._changed.notify_all()
        self._image = item.image
        self.behind = time.monotonic() - item.came
        return Stamp(item.index, item.came - self._start)

    def picture(self) -> np.ndarray:
        """The grabbed frame."""
        return self._image

    def close(self) -> None:
        """Stop the thread, which lets go of the source."""
        self._stopped.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread is None:
            self._capture.close()
        else:
            # reason: a silent source lets go after its time-out only
            self._thread.join(timeout=1.0)

    def _run(self) -> None:
        try:
            while not self._stopped.is_set():
                if self._capture.grab() is not None:
                    self._put(self._capture.picture())
                elif not self._connect_again():
                    break
        except Exception as error:
            self._error = error
        finally:
            self._capture.close()
            with self._changed:
                self._over = True
                self._changed.notify_all()

    def _put(self, image: np.ndarray) -> None:
        now = time.monotonic()
        with self._changed:
            if self._start is None:
                self._start = now
            if self.options.policy == "newest":
                self.dropped += len(self._waiting)
                self._waiting.clear()
            elif len(self._waiting) >= _BUFFER:
                self.fallen_back = True
                self._changed.wait_for(
                    lambda: len(self._waiting) < _BUFFER or self._stopped.is_set()
                )
            self._waiting.append(_Item(self._came, now, image))
            self._came += 1
            self._changed.notify_all()

    def _connect_again(self) -> bool:
        """Try as often as asked for; False if it stays away or nobody asked."""
        self._capture.close()
        broke = time.monotonic()
        for attempt in range(1, self.options.reconnect + 1):
            self.options.say(
                f"{self.name} broke off after {self._came} frames; connecting again "
                f"({attempt} of {self.options.reconnect})."
            )
            if self._stopped.wait(self.options.pause * attempt):
                return False
            try:
                capture = self._connect()
            except Unreadable:
                continue
            if capture.grab() is None:
                capture.close()
                continue
            self._capture = capture
            self.reconnected += 1
            away = time.monotonic() - broke
            self.options.say(f"{self.name} is back after {away:.1f} s.")
            self._put(capture.picture())
            return True
        return False
