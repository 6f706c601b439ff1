"""A replica that hangs under Ray without ending: it is named, and no other stream waits for it."""

from __future__ import annotations

import os
import re
import signal
import threading
import time

import pytest

from tests.serving.ray_app.cameras import cameras_of
from tests.serving.ray_app.started import started

pytestmark = pytest.mark.extras("serve", "ray")


@pytest.fixture
def service(monkeypatch):
    """Two replicas, asked for how much they have whenever a frame comes."""
    monkeypatch.setenv("RAY_SERVE_QUEUE_LENGTH_CACHE_TIMEOUT_S", "0.1")
    with started(
        model="tests.serving.ray_app.frail:make", replicas=2, cpus=0.1, answer_seconds=60,
        report_seconds=3,
    ) as made:  # fmt: skip
        yield made


def test_a_replica_that_hangs_is_named_and_nobody_else_waits_for_it(service):
    of = cameras_of(service, "hang")
    (hung, sleeping), (stays, others) = of.items()
    shown = {camera.name: next(camera.shown) for camera in sleeping}
    answers = []

    def ask(camera, number):
        answers.append(service.frame(camera.name, number, shown[camera.name]))

    frames = [(camera, number) for camera in sleeping[:2] for number in range(1, 6)]
    threads = [threading.Thread(target=ask, args=frame) for frame in frames]
    os.kill(hung, signal.SIGSTOP)
    try:
        status, said = service.ask("GET", "/health")
        assert (status, said["replicas"], len(said["silent"])) == (200, 1, 1)
        for thread in threads:  # more than Serve routes at a time
            thread.start()
        time.sleep(1)
        for _ in range(5):
            for camera in others:
                assert camera.next() == stays
        metrics = service.ask("GET", "/metrics")[1]
        counted = re.findall(r'^mmvitaccel_frames_total{replica="(.*)"} (\d+)$', metrics, re.M)
        ((name, frames),) = counted
        assert int(frames) == sum(camera.number + 1 for camera in others)
        assert [name] != said["silent"] and f'up{{replica="{said["silent"][0]}"}} 0' in metrics
        assert answers == []
    finally:
        os.kill(hung, signal.SIGCONT)
        for thread in threads:
            if thread.ident is not None:
                thread.join()
    service.wait_until_ready()
    # their replica took them when it could: the latest were computed, others left out for them
    assert {status for status, _ in answers} <= {200, 409, 503}
    for camera in sleeping:
        status, said = service.frame(camera.name, 9, next(camera.shown))
        assert (status, said["whole"], said["output"][-1]) == (200, False, hung)
    for camera in (*sleeping, *others):
        camera.leave()
