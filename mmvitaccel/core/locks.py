"""A lock that is free in a forked process even if a thread held it during the fork."""

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
    # The thread that held the lock does not exist in the child and cannot release it
    for lock in list(_LOCKS):
        lock._renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
