"""The service as it is started, and what a test looks at."""

from __future__ import annotations

import os
import re
import shutil
import signal
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from mmvitaccel.testing.service import Service
from tests.serving.conftest import encoded
from tests.serving.ray_app.processes import below


class Started(Service):
    """The service, and what a test looks at."""

    def frame(self, stream, number, picture):
        return self.ask("POST", "/frame", stream, number, encoded(picture))

    def metrics(self):
        samples = re.findall(r"^(\w+)(?:{(.*)})? (\S+)$", self.ask("GET", "/metrics")[1], re.M)
        return [(name, labels, float(value)) for name, labels, value in samples]

    def total(self, name):
        return sum(value for found, _, value in self.metrics() if found == "mmvitaccel_" + name)

    def replicas(self, deployment="Streams"):
        """The processes of a deployment."""
        started = f"ray::ServeReplica:streams:{deployment}"
        return {p for p, command in below(self.process.pid).items() if command.startswith(started)}


@contextmanager
def starting(args, command=None):
    """A service that ends with the block, and all of its processes with it."""
    folder = Path(tempfile.mkdtemp(prefix="mmv"))
    made = Started(folder, args, command)
    try:
        yield made
    finally:
        left = below(made.process.pid)
        made.stop()
        for pid in left:  # those of this service alone
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def started(**args):
    """A service that is ready, until the block ends."""
    with starting(args) as made:
        made.wait_until_ready()
        yield made


def pictures(seed, count=4):
    """Pictures (32, 48, 3) of which a corner is another one each time."""
    rng = np.random.default_rng(seed)
    shown = rng.integers(0, 200, (32, 48, 3), dtype=np.uint8)
    for _ in range(count):
        yield shown
        shown = shown.copy()
        shown[8:24, 8:32] = rng.integers(0, 200, (16, 24, 3))
