"""The service as it is started, over HTTP: streams stick, faults stay where they are."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mmvitaccel.errors import UserError
from mmvitaccel.testing.service import ROOT, TOKEN, Alone
from tests.serving.conftest import bomb, encoded
from tests.serving.ray_app.processes import below, listening, outside
from tests.serving.ray_app.started import pictures, started

pytestmark = pytest.mark.extras("serve", "ray")


@pytest.fixture(scope="module")
def service():
    """Two replicas, started by the command with a YAML like that of the package."""
    with started(
        model="mmvitaccel.testing.service:make", replicas=2, cpus=0.1, max_streams=8,
        max_batch=4, megabytes=0.1, megapixels=0.01, answer_seconds=60,
    ) as made:  # fmt: skip
        yield made


def test_streams_stick_to_their_replicas_and_give_what_they_give_alone(service):
    names = [f"cam-{n}" for n in range(6)]
    shown = {name: list(pictures(seed)) for seed, name in enumerate(names)}
    for name in names:
        assert service.ask("PUT", "/stream", name)[0] == 200
    found = {name: [] for name in names}

    def play(name):
        for number, picture in enumerate(shown[name]):
            found[name].append(service.frame(name, number, picture))

    threads = [threading.Thread(target=play, args=[name]) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in names:
        assert [status for status, _ in found[name]] == [200] * 4
        answers, alone = [answer for _, answer in found[name]], Alone()
        assert [a["frame_id"] for a in answers] == [0, 1, 2, 3]
        assert [a["whole"] for a in answers] == [True, False, False, False]
        for answer, picture in zip(answers, shown[name]):
            assert alone.difference(picture, answer["output"], answer["whole"]) < 1e-5
    served = {
        labels: v for name, labels, v in service.metrics() if name == "mmvitaccel_frames_total"
    }
    assert len(served) == 2 and sum(served.values()) == 24
    assert all(value % 4 == 0 for value in served.values())  # no stream is on two replicas
    assert service.total("dense_frames_total") == 6 and service.total("streams") == 6
    assert service.total("state_bytes") > 0


def test_nothing_listens_but_on_this_machine(service):
    tree = below(service.process.pid)
    assert any("gcs_server" in command for command in tree.values())
    assert any("raylet" in command for command in tree.values()) and len(service.replicas()) == 2
    found = listening(tree)
    assert ("127.0.0.1", service.port) in found and len(found) > 5
    assert outside(found) == []


def test_usage_is_not_reported(service):
    for pid in (*service.replicas(), service.process.pid):
        values = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        if pid != service.process.pid:  # whose own environment is as it was started with
            assert b"RAY_USAGE_STATS_ENABLED=0" in values


def test_poison_is_named_and_others_do_not_notice(service):
    good, shown = "good", list(pictures(7, 8))
    service.ask("PUT", "/stream", good)
    assert service.frame(good, 0, shown[0])[1]["whole"]
    service.ask("PUT", "/stream", "bad")
    for number, (status, sentence, ask) in enumerate(
        [
            (415, "are not a picture", dict(body=b"hello")),
            (413, "megapixels", dict(body=bomb(10_000, 10_000))),
            (413, "bytes, above the limit of 100000", dict(body=bytes(200_000))),
            (403, "another token", dict(body=encoded(shown[0]), token="guess")),
            (400, "give it as 640x480", dict(body=b"x", **{"x-frame-size": "x"})),
        ],
        start=1,
    ):
        found, said = service.ask("POST", "/frame", "bad", 1, **ask)
        assert found == status and sentence in said["error"]
        status, answer = service.frame(good, number, shown[number])
        assert status == 200 and not answer["whole"]
    status, said = service.ask("PUT", "/stream", "k\u00e4mera")
    assert status == 400 and "invalid stream name" in said["error"]
    status, said = service.frame(good, 2, shown[2])
    assert status == 409 and "frame 2 came after frame 5" in said["error"]
    status, said = service.ask("POST", "/frame", good, body=b"x", **{"x-frame-id": "first"})
    assert status == 400 and "invalid header x-frame-id: 'first'" in said["error"]
    assert service.ask("GET", "/nothing")[0] == 404
    for path in ("/health", "/metrics"):
        assert service.ask("HEAD", path) == (200, "")
    assert service.frame(good, 6, shown[6])[1]["whole"] is False


def test_a_client_that_vanishes_is_not_waited_for(service):
    shown = list(pictures(8, 3))
    service.ask("PUT", "/stream", "stays")
    service.frame("stays", 0, shown[0])
    head = "POST /frame HTTP/1.1\r\nhost: a\r\nx-session-id: stays\r\nx-stream-token: {}\r\n"
    for text in (
        head.format(TOKEN) + "x-frame-id: 1\r\ncontent-length: 5000\r\n\r\nhalf",
        head.format(TOKEN) + "x-frame-id: 1\r\ncontent-le",
        "\0\0\0",
    ):
        with socket.create_connection(("127.0.0.1", service.port)) as gone:
            gone.sendall(text.encode())
    status, answer = service.frame("stays", 2, shown[1])
    assert status == 200 and not answer["whole"]


def test_another_process_plays_a_stream_by_the_address_of_ray(service):
    command = [sys.executable, "-m", "tests.serving.ray_app.other_process", service.address]
    ended = subprocess.run(command, env=service.env, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    said = json.loads(ended.stdout.splitlines()[-1])
    alone = Alone()
    assert [a["whole"] for a in said["answers"]] == [True, False, False]
    assert said["kind"] == "ndarray"
    for number, (answer, picture) in enumerate(zip(said["answers"], pictures(5))):
        assert (answer["stream"], answer["frame_id"]) == ("python", number)
        assert alone.difference(picture, answer["output"], answer["whole"]) < 1e-5
    for reason, sentence in (
        ("token", "another token"),
        ("order", "frame 2 came after frame 2"),
        ("frame", "are not a picture"),
        ("unknown", "stream 'python' is not open"),
    ):
        assert said[reason][0] == reason and sentence in said[reason][1]
        assert "Traceback" not in said[reason][1]
    assert "no application 'nothing' of Ray Serve runs there" in said["application"]
    assert said["sockets"] and outside(said["sockets"]) == []


def test_an_address_without_ray_is_named():
    from mmvitaccel.serving.ray_app import StreamClient

    with pytest.raises(UserError, match=r"no Ray is at 'nowhere' \(.*start the service and give"):
        StreamClient("nowhere")
