"""How threads of torch's OpenMP pool wait for each other: by spinning, or asleep.

At the end of every parallel loop, GNU's OpenMP runtime (libgomp) spins for milliseconds before it
sleeps. That is fastest on cores that nobody else wants. On a loaded machine a thread that waits
spins away the time slice that the thread it waits for would need, and a frame takes many times its
fair share. The runtime reads ``OMP_WAIT_POLICY`` when it is loaded, too early for this package.

But it spins hardly at all while it manages more threads than there are processors. So while other
processes interrupt this one often, a thread is kept that owns a pool of its own, asleep; when they
are gone, it ends, and waiting threads spin again.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from dataclasses import dataclass

import torch
from torch import Tensor

from mmvitaccel.core.kernels.compiler import is_compiling
from mmvitaccel.core.kernels.library.openmp import runtime_is_gnu, torch_runtime

try:
    import resource
except ImportError:  # Windows
    resource = None

#: Interruptions per second of this process's computing above which it does not spin, and below
#: which it spins again. An idle machine shows 15 to 40, one busy process beside two threads 130.
LOADED, QUIET = 80.0, 40.0
#: Seconds of computing after which either is judged.
SOON, LATER = 0.25, 1.0


@dataclass(frozen=True)
class Usage:
    """What this process has used so far.

    Attributes:
        seconds: Of computing, over all threads.
        interruptions: How often a thread that wanted to go on had to give up its core.
    """

    seconds: float
    interruptions: int

    @classmethod
    def now(cls) -> Usage:
        """Ask the system; takes about a microsecond."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        return cls(used.ru_utime + used.ru_stime, used.ru_nivcsw)


class Watch:
    """Decides from time to time whether threads that wait should sleep.

    Attributes:
        asleep: Whether they do.
    """

    def __init__(self) -> None:
        self.asleep = False
        self._lock = threading.Lock()
        self._last = Usage.now()
        self._leave = threading.Event()

    def look(self) -> None:
        """Judge what happened since the last time, if that was long enough ago."""
        if not self._lock.acquire(blocking=False):
            return  # reason: another thread is looking
        try:
            now = Usage.now()
            seconds = now.seconds - self._last.seconds
            if seconds < (LATER if self.asleep else SOON):
                return
            rate = (now.interruptions - self._last.interruptions) / seconds
            self._last = now
            if rate > LOADED and not self.asleep:
                self._leave = _sleeping_pool()
                self.asleep = True
            elif rate < QUIET and self.asleep:
                self._leave.set()
                self.asleep = False
        finally:
            self._lock.release()


def _sleeping_pool() -> threading.Event:
    """Start a thread that owns a pool as large as the machine; it ends at the event."""
    ready, leave = threading.Event(), threading.Event()

    def own() -> None:
        parallel = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 2, *[ctypes.c_uint] * 2)
        # reason: any function that may run on all threads at once will do; free(NULL) does nothing
        nothing = ctypes.cast(ctypes.CDLL(None).free, ctypes.c_void_p)
        run = parallel(torch_runtime()[0].value)
        run(nothing, None, len(os.sched_getaffinity(0)), 0)
        ready.set()
        leave.wait()

    threading.Thread(target=own, name="mmvitaccel-openmp-wait", daemon=True).start()
    ready.wait()
    return leave


@functools.cache
def _watch() -> Watch | None:
    """The process's own; None where there is nothing to be done."""
    return Watch() if resource is not None and runtime_is_gnu() else None


if hasattr(os, "register_at_fork"):
    # reason: threads do not survive a fork, and the lock may have been held
    os.register_at_fork(after_in_child=_watch.cache_clear)


def share_cores(x: Tensor) -> None:
    """Call it at the beginning of a block of work on ``x``: keeps to a fair share of the cores.

    Args:
        x: What is computed with; on another device than a CPU nothing happens.
    """
    if x.device.type != "cpu" or torch.jit.is_tracing() or is_compiling():
        return
    watch = _watch()
    if watch is not None:
        watch.look()
