"""How threads of torch's OpenMP pool wait for each other: by spinning, or asleep.

At the end of every parallel loop, GNU's OpenMP runtime (libgomp) spins for milliseconds before it
sleeps. That is fastest on cores that nobody else wants. On a loaded machine a thread that waits
spins away the time slice that the thread it waits for would need, and a frame takes many times its
fair share. The runtime reads ``OMP_WAIT_POLICY`` when it is loaded, too early for this package.

But it spins hardly at all while it manages more threads than there are processors. So while this
process's threads often wait for a core, a thread is kept that owns a pool of its own, asleep; when
others are gone, it ends, and waiting threads spin again.
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
    """What this process has used so far, in seconds over all threads.

    Attributes:
        computed: On a core.
        waited: For a core, by thread.
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
        """Ask the system; takes some microseconds a thread."""
        waited = {}
        for task in os.listdir(_TASKS):
            try:
                nanoseconds = (_TASKS / task / "schedstat").read_text().split()[1]
            except OSError:  # reason: it has ended by now
                continue
            waited[task] = int(nanoseconds) / 1e9
        return cls(cls.computed_now(), waited)

    def waited_since(self, before: Usage) -> float:
        """How long those threads that there are have waited since."""
        return sum(max(s - before.waited.get(task, 0.0), 0.0) for task, s in self.waited.items())


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
        """Let waiting threads spin again, if they sleep."""
        self._leave.set()
        self.asleep = False


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
def watch() -> Watch | None:
    """The process's own; None where there is nothing to be done."""
    asked = resource is not None and (_TASKS / str(os.getpid()) / "schedstat").exists()
    return Watch() if asked and runtime_is_gnu() else None


if hasattr(os, "register_at_fork"):
    # reason: threads do not survive a fork, and the lock may have been held
    os.register_at_fork(after_in_child=watch.cache_clear)


def share_cores(x: Tensor) -> None:
    """Call it at the beginning of a block of work on ``x``: keeps to a fair share of the cores.

    Args:
        x: What is computed with; on another device than a CPU nothing happens.
    """
    if x.device.type != "cpu" or torch.jit.is_tracing() or is_compiling():
        return
    own = watch()
    if own is not None:
        own.look()
