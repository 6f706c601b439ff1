"""Waiting of threads in torch's OpenMP pool: spinning or sleeping.

At the end of every parallel loop, GNU's OpenMP runtime (libgomp) spins for milliseconds before it
sleeps. That is fastest on idle cores. On a loaded machine, a spinning thread uses up the time slice
that the thread it waits for needs, and a frame takes many times its fair share. The runtime reads
``OMP_WAIT_POLICY`` when it is loaded, which is too early for this package.

However, it hardly spins while it manages more threads than there are processors. Therefore, while
this process's threads often wait for a core, an additional sleeping thread with its own pool is
kept. When the load is gone, this thread ends, and waiting threads spin again.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mmvitaccel.core.kernels.library.openmp import runtime_is_gnu, torch_runtime
from mmvitaccel.core.torch_modes import is_compiling

try:
    import resource
except ImportError:  # Windows
    resource = None

#: Seconds that threads wait for a core, for each second of computing, above which they do not spin,
#: and below which they spin again. An idle machine shows 0.01 to 0.05, one busy process beside two
#: threads 0.5 if they spin, and more if they sleep.
LOADED, QUIET = 0.2, 0.1
#: Seconds of computing after which either is judged.
SOON, LATER = 0.25, 1.0

_TASKS = Path("/proc/self/task")  # of Linux


@dataclass(frozen=True)
class Usage:
    """CPU usage of this process so far, in seconds over all threads.

    Attributes:
        computed: Time on a core.
        waited: Time waiting for a core, by thread.
    """

    computed: float
    waited: Mapping[str, float]

    @staticmethod
    def computed_now() -> float:
        """``computed`` alone; takes about a microsecond."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        return used.ru_utime + used.ru_stime

    @classmethod
    def now(cls) -> Usage:
        """Read the usage; takes some microseconds per thread."""
        waited = {}
        for task in os.listdir(_TASKS):
            try:
                nanoseconds = (_TASKS / task / "schedstat").read_text().split()[1]
            except OSError:  # The thread has ended
                continue
            waited[task] = int(nanoseconds) / 1e9
        return cls(cls.computed_now(), waited)

    def waited_since(self, before: Usage) -> float:
        """Time that existing threads have waited for a core since ``before``."""
        return sum(max(s - before.waited.get(task, 0.0), 0.0) for task, s in self.waited.items())


class Watch:
    """Decides periodically whether waiting threads should sleep.

    Attributes:
        asleep: Whether waiting threads sleep.
    """

    def __init__(self) -> None:
        self.asleep = False
        self._lock = threading.Lock()
        self._last = Usage.now()
        self._leave = threading.Event()

    def look(self) -> None:
        """Evaluate the usage since the last time, if that was long enough ago."""
        if not self._lock.acquire(blocking=False):
            return  # Another thread evaluates
        try:
            seconds = Usage.computed_now() - self._last.computed
            if seconds < (LATER if self.asleep else SOON):
                return
            now = Usage.now()
            rate = now.waited_since(self._last) / seconds
            self._last = now
            if rate > LOADED and not self.asleep:
                self._leave = _sleeping_pool()
                self.asleep = True
            elif rate < QUIET:
                self.wake()
        finally:
            self._lock.release()

    def wake(self) -> None:
        """Let waiting threads spin again if they sleep."""
        self._leave.set()
        self.asleep = False


def _sleeping_pool() -> threading.Event:
    """Start a thread that owns a pool as large as the machine; it ends at the event."""
    ready, leave = threading.Event(), threading.Event()

    def own() -> None:
        parallel = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 2, *[ctypes.c_uint] * 2)
        # Any function that may run on all threads at once will do; free(NULL) does nothing
        nothing = ctypes.cast(ctypes.CDLL(None).free, ctypes.c_void_p)
        run = parallel(torch_runtime()[0].value)
        run(nothing, None, len(os.sched_getaffinity(0)), 0)
        ready.set()
        leave.wait()

    threading.Thread(target=own, name="mmvitaccel-openmp-wait", daemon=True).start()
    ready.wait()
    return leave


@functools.cache
def watch() -> Watch | None:
    """The watch of this process; None if it is not needed."""
    asked = resource is not None and (_TASKS / str(os.getpid()) / "schedstat").exists()
    return Watch() if asked and runtime_is_gnu() else None


if hasattr(os, "register_at_fork"):
    # Threads do not survive a fork, and the lock may have been held
    os.register_at_fork(after_in_child=watch.cache_clear)


def share_cores(x: Tensor) -> None:
    """Adapt waiting to the load; call at the beginning of a block of work on ``x``.

    Args:
        x: An input of the work; there is no effect on devices other than a CPU.
    """
    if x.device.type != "cpu" or torch.jit.is_tracing() or is_compiling():
        return
    own = watch()
    if own is not None:
        own.look()
