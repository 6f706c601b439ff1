"""Replicas that end under Ray: whoever was with them is told, and nobody else notices."""

from __future__ import annotations

import os
import signal
import socket
import threading

import pytest

from mmvitaccel.testing.service import TOKEN
from tests.serving.conftest import encoded
from tests.serving.ray_app.cameras import cameras_of, goes_on, in_the_model
from tests.serving.ray_app.frail import that_stays
from tests.serving.ray_app.started import started

pytestmark = pytest.mark.extras("serve", "ray")


@pytest.fixture(scope="module")
def service():
    """Two replicas that end often."""
    with started(
        model="tests.serving.ray_app.frail:make", replicas=2, cpus=0.1, answer_seconds=60
    ) as made:
        yield made


class Playing:
    """Shows frames of cameras, one after the other, for as long as the block lasts."""

    def __init__(self, cameras):
        self.cameras, self.error, self.rounds = cameras, None, 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._play)

    def _play(self):
        try:
            while not self._ended.wait(0.05):
                for camera in self.cameras:
                    camera.next()
                self.rounds += 1
        except BaseException as error:
            self.error = error

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc_info):
        self._ended.set()
        self._thread.join()
        if self.error is not None:
            raise self.error


def kill_with_a_frame(camera):
    """Kill the replica of a stream that has a frame in the model, and check what is said."""
    thread, answers = in_the_model(camera)
    os.kill(camera.process, signal.SIGKILL)
    thread.join()
    (status, said), *_ = answers
    assert status == 503
    camera.note_lost(said)


def test_a_replica_is_killed_with_a_frame_twice_in_a_row(service):
    of = cameras_of(service, "twice")
    (killed, (first, second, *_)), (stays, others) = of.items()
    lost = service.total("lost_frames_total")
    kill_with_a_frame(first)
    for camera in others:  # while there is one replica less
        assert camera.next() == stays
    # the next frame goes to the process that is left, or to the new one
    goes_on(first)
    goes_on(second)
    assert killed not in (first.process, second.process)
    assert (first.moves, second.moves) == (1, 1)
    with pytest.raises(AssertionError, match="came after"):
        first.number -= 1
        first.next()
    kill_with_a_frame(first)
    goes_on(first)
    service.wait_until_ready()
    everyone = [first, second, *others]
    for camera in everyone:
        goes_on(camera)
        assert camera.process in service.replicas()
    assert service.total("lost_frames_total") - lost == sum(len(c.lost) for c in everyone)
    for cameras in of.values():
        for camera in cameras:
            camera.leave()


def test_a_replica_is_killed_during_its_start(service):
    of = cameras_of(service, "start")
    (killed, (camera, *_)), (_, others) = of.items()
    before = service.replicas()
    with Playing(others) as playing:
        os.kill(killed, signal.SIGKILL)
        service.wait_until(lambda: service.replicas() - before, "another replica")
        for process in service.replicas() - before:
            os.kill(process, signal.SIGKILL)
        goes_on(camera)
        rounds = playing.rounds
        service.wait_until(lambda: playing.error or playing.rounds >= rounds + 3, "more frames")
        service.wait_until_ready()
    assert not any(camera.lost for camera in others)
    assert len(service.replicas()) == 2 and killed not in service.replicas()
    for cameras in of.values():
        for each in cameras:
            goes_on(each)
            each.leave()


def test_the_gateway_is_killed_and_the_streams_go_on(service):
    of = cameras_of(service, "gateway")
    (gateway,) = service.replicas("Gateway")
    os.kill(gateway, signal.SIGKILL)
    service.wait_until(lambda: service.replicas("Gateway") - {gateway}, "another gateway")
    service.wait_until_ready()
    for cameras in of.values():
        for camera in cameras:
            process = camera.process
            assert camera.next() == process
            camera.leave()


def test_clients_that_vanish_while_their_frames_are_computed(service):
    of = cameras_of(service, "vanish")
    (_, (camera, neighbour, *_)), _ = of.items()
    cancelled, frames = service.total("cancelled_frames_total"), service.total("frames_total")
    shown = [that_stays(next(camera.shown), 3), next(camera.shown)]
    gone = []
    for number, picture in enumerate(shown, start=1):
        body = encoded(picture)
        head = (
            f"POST /frame HTTP/1.1\r\nhost: a\r\nx-session-id: {camera.name}\r\n"
            f"x-stream-token: {TOKEN}\r\nx-frame-id: {number}\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        gone.append(socket.create_connection(("127.0.0.1", service.port)))
        gone[-1].sendall(head.encode() + body)
        service.wait_until(lambda n=number: service.total("waiting_frames") == n, "its turn")
    for connection in gone:
        connection.close()
    assert neighbour.next() == neighbour.process
    # the first was in the model, the second is left out
    assert service.total("cancelled_frames_total") - cancelled == 1
    assert service.total("frames_total") - frames == 2
    status, said = service.frame(camera.name, 2, shown[1])
    assert status == 409 and "frame 2 came after frame 2" in said["error"]
    status, said = service.frame(camera.name, 3, shown[1])
    assert status == 200 and not said["whole"]
    for cameras in of.values():
        for each in cameras:
            each.leave()
