"""Threads that wait sleep while other processes interrupt this one, and spin again afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
import torch

from mmvitaccel import TopK, apply_eventful, apply_tome
from mmvitaccel.core.kernels import openmp_wait
from mmvitaccel.core.kernels.library.openmp import runtime_is_gnu
from mmvitaccel.core.kernels.openmp_wait import Usage, Watch
from mmvitaccel.testing.models import timm_model

pytestmark = pytest.mark.skipif(
    openmp_wait.resource is None or not runtime_is_gnu(), reason="torch's OpenMP is not GNU's"
)


@pytest.fixture
def usage(monkeypatch):
    """``usage(seconds, waited)`` adds to what the process has used, in two threads."""
    used = [0.0, 0.0]
    now = classmethod(lambda cls: Usage(used[0], {"1": used[1] / 4, "2": used[1] * 3 / 4}))
    monkeypatch.setattr(Usage, "now", now)
    monkeypatch.setattr(Usage, "computed_now", staticmethod(lambda: used[0]))

    def add(seconds, waited):
        used[0] += seconds
        used[1] += waited

    return add


@pytest.fixture
def owners():
    """The threads that own a pool, but for that of the process's own watch, which may be loaded."""

    def present():
        return [t for t in threading.enumerate() if t.name == "mmvitaccel-openmp-wait"]

    before = present()
    return lambda: [t for t in present() if t not in before]


def test_sleeps_under_load_and_spins_again(usage, owners):
    watch = Watch()
    usage(0.3, 0.05)
    watch.look()
    assert not watch.asleep and not owners()
    usage(0.3, 0.07)
    watch.look()
    (owner,) = owners()
    assert watch.asleep
    usage(1.1, 0.2)  # neither loaded nor quiet: it stays as it is
    watch.look()
    assert watch.asleep and owners() == [owner]
    usage(1.1, 0.1)
    watch.look()
    owner.join(10)
    assert not watch.asleep and not owners()


def test_the_pool_is_as_large_as_the_machine_and_goes():
    """In a process of its own, in which nothing else starts threads."""
    script = (
        "import os, time\n"
        "from mmvitaccel.core.kernels.openmp_wait import _sleeping_pool\n"
        "count = lambda: len(os.listdir('/proc/self/task'))\n"
        "before = count()\n"
        "leave = _sleeping_pool()\n"
        "print(count() - before)\n"
        "leave.set()\n"
        "end = time.monotonic() + 20\n"
        "while count() > before and time.monotonic() < end:\n"
        "    time.sleep(0.01)\n"
        "print(count() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(len(os.sched_getaffinity(0))), "0"]


def test_a_short_look_decides_nothing(usage):
    watch = Watch()
    for _ in range(3):
        usage(0.08, 0.1)
        watch.look()
        assert not watch.asleep
    usage(0.08, 0.1)
    watch.look()
    assert watch.asleep
    usage(0.9, 0)
    watch.look()
    assert watch.asleep
    usage(0.2, 0)
    watch.look()
    assert not watch.asleep


@pytest.mark.parametrize("method", ["eventful", "tome"])
def test_the_methods_look_in_every_block(method, monkeypatch):
    looks = []
    monkeypatch.setattr(openmp_wait, "watch", lambda: Looking(looks))
    model = timm_model("vit_tiny_patch16_224", img_size=32, depth=3).eval()
    if method == "tome":
        apply_tome(model, r=1)
    else:
        apply_eventful(model, TopK(2))
    with torch.no_grad():
        for frames in (1, 2):
            model(torch.zeros(1, 3, 32, 32))
            assert len(looks) == 3 * frames


def test_nothing_happens_while_a_model_is_traced(monkeypatch):
    looks = []
    monkeypatch.setattr(openmp_wait, "watch", lambda: Looking(looks))
    torch.jit.trace(
        lambda x: (openmp_wait.share_cores(x), x + 1)[1], torch.zeros(1), check_trace=False
    )
    assert not looks
    openmp_wait.share_cores(torch.zeros(1))
    assert looks == [1]
    openmp_wait.share_cores(torch.zeros(1, device="meta"))
    assert looks == [1]


class Looking:
    def __init__(self, looks):
        self.look = lambda: looks.append(1)


def test_waiting_is_told_of_each_thread():
    used = Usage.now()
    assert used.computed > 0 and used.waited[str(threading.get_native_id())] >= 0
    before = Usage(1.0, {"1": 2.0, "2": 5.0, "3": 7.0})
    # one goes on, one has ended, one began, and one has the number of one that had waited longer
    after = Usage(2.0, {"1": 2.5, "3": 1.0, "4": 0.25})
    assert after.waited_since(before) == 0.75
