"""Cameras and network streams, read in a background thread."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mmvitaccel.video_reader.timing import Capture, Stamp, Unreadable

POLICIES = ("newest", "all")
_BUFFER_SIZE = 64  # frames


@dataclass(frozen=True)
class LiveOptions:
    """Options for reading a live source.

    Attributes:
        policy: ``'newest'`` drops the frames that arrive while another one is processed. ``'all'``
            keeps every frame in order and buffers up to 64; a slow consumer falls behind.
        reconnect: Number of consecutive attempts to reconnect to a source that disconnected.
        say: Called with a sentence when the source disconnects and when it is connected again.
        pause: Seconds before the first attempt; n times that before the n-th.
    """

    policy: str
    reconnect: int
    say: Callable[[str], None]
    pause: float = 1.0


@dataclass(frozen=True)
class _BufferedFrame:
    index: int
    arrival: float
    image: np.ndarray


class LiveCapture:
    """Reads a live source in its own thread, which the first :meth:`grab` starts.

    Args:
        name: Name for messages.
        capture: The connected source.
        connect: Opens the source again.
        options: Buffering and reconnection.

    Attributes:
        dropped: Number of dropped frames so far.
        behind: Seconds that the current frame spent in the buffer.
        was_full: Whether the buffer was full at some time.
        reconnected: Number of reconnections so far.
    """

    def __init__(
        self, name: str, capture: Capture, connect: Callable[[], Capture], options: LiveOptions
    ) -> None:
        self.name = name
        self.options = options
        self.fps, self.count, self.duration, self.damaged = capture.fps, None, None, 0
        self.dropped = self.reconnected = 0
        self.behind = 0.0
        self.was_full = False
        self._capture, self._connect = capture, connect
        self._buffer: deque[_BufferedFrame] = deque()
        self._changed = threading.Condition()
        self._stopped = threading.Event()
        self._over = False
        self._error: Exception | None = None
        self._received = 0  # frames so far
        self._start: float | None = None
        self._image: np.ndarray | None = None
        self._thread: threading.Thread | None = None

    def grab(self) -> Stamp | None:
        """Wait for a frame; return None if the source has disconnected for good."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
            self._thread.start()
        with self._changed:
            self._changed.wait_for(lambda: self._buffer or self._over)
            if not self._buffer:
                if self._error is not None:
                    raise self._error
                return None
            frame = self._buffer.popleft()
            self._changed.notify_all()
        self._image = frame.image
        self.behind = time.monotonic() - frame.arrival
        return Stamp(frame.index, frame.arrival - self._start)

    def picture(self) -> np.ndarray:
        """Return the current frame, (H, W, 3) uint8 RGB, upright."""
        return self._image

    def close(self) -> None:
        """Stop the thread, which closes the source."""
        self._stopped.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread is None:
            self._capture.close()
        else:
            # The thread may be waiting for a silent source, until its timeout.
            self._thread.join(timeout=1.0)

    def _run(self) -> None:
        try:
            while not self._stopped.is_set():
                if self._capture.grab() is not None:
                    self._put(self._capture.picture())
                elif not self._reconnect():
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
                self.dropped += len(self._buffer)
                self._buffer.clear()
            elif len(self._buffer) >= _BUFFER_SIZE:
                self.was_full = True
                self._changed.wait_for(
                    lambda: len(self._buffer) < _BUFFER_SIZE or self._stopped.is_set()
                )
            self._buffer.append(_BufferedFrame(self._received, now, image))
            self._received += 1
            self._changed.notify_all()

    def _reconnect(self) -> bool:
        """Try to reconnect, ``options.reconnect`` times at most; return whether it worked."""
        self._capture.close()
        start = time.monotonic()
        for attempt in range(1, self.options.reconnect + 1):
            self.options.say(
                f"{self.name} disconnected after {self._received} frames; reconnecting "
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
            seconds = time.monotonic() - start
            self.options.say(f"{self.name} is connected again after {seconds:.1f} s.")
            self._put(capture.picture())
            return True
        return False
