"""A lock for what threads share, free in a process that was forked while a thread held it."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any


class Lock:
    """A re-entrant lock as a context manager."""

    def __init__(self) -> None:
        self._renew()
        _LOCKS.add(self)

    def _renew(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *exc_info: Any) -> None:
        self._lock.release()


_LOCKS: weakref.WeakSet[Lock] = weakref.WeakSet()


def _renew_all() -> None:
    # reason: the thread that held a lock is not there in the child, and would never release it
    for lock in list(_LOCKS):
        lock._renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
