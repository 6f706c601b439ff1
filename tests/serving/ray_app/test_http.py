"""The service's HTTP, without a server."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pytest

from mmvitaccel.serving import FrameLimits
from mmvitaccel.serving.answers import REASONS
from mmvitaccel.serving.ray_app.gateway import Gateway
from mmvitaccel.serving.ray_app.http import STATUS, respond
from tests.serving.conftest import bomb, encoded

LIMITS = FrameLimits(megabytes=0.1, megapixels=0.01)
HEADERS = {"x-session-id": "a", "x-stream-token": "secret"}


def ask(gateway, method, path, headers=None, body=b"", read=None):
    async def parts():
        for first in range(0, len(body), 1000):
            if read is not None:
                read.append(first)
            yield body[first : first + 1000]

    said = asyncio.run(respond(gateway, LIMITS, method, path, headers or HEADERS, parts()))
    is_json = said.content_type == "application/json"
    return said.status, json.loads(said.body) if is_json else said.body.decode()


def test_a_stream_from_its_opening_to_its_end(gateway, replicas, pictures):
    model = replicas.start("r0", limits=LIMITS)
    assert ask(gateway, "PUT", "/stream") == (200, {"stream": "a"})
    status, answer = ask(
        gateway, "POST", "/frame", {**HEADERS, "x-frame-id": "0"}, encoded(pictures[0])
    )
    assert status == 200
    assert (answer["stream"], answer["frame_id"], answer["whole"]) == ("a", 0, True)
    assert np.shape(answer["output"][0]) == (1, 32, 4, 6)
    raw = {**HEADERS, "x-frame-id": "1", "x-frame-size": "48x32"}
    status, answer = ask(gateway, "POST", "/frame", raw, pictures[1].tobytes())
    assert status == 200 and not answer["whole"] and 0 < answer["computed"] < 1
    status, metrics = ask(gateway, "GET", "/metrics")
    assert status == 200
    for line in (
        'mmvitaccel_frames_total{replica="r0"} 2',
        'mmvitaccel_dense_frames_total{replica="r0"} 1',
        f'mmvitaccel_state_bytes{{replica="r0"}} {model.handle.memory_bytes}',
        "mmvitaccel_lost_frames_total 0",
    ):
        assert f"\n{line}\n" in metrics
    assert ask(gateway, "GET", "/health") == (200, {"replicas": 1, "silent": []})
    assert ask(gateway, "DELETE", "/stream") == (200, {"stream": "a"})
    status, said = ask(gateway, "POST", "/frame", {**HEADERS, "x-frame-id": "2"}, b"x")
    assert status == 404 and said["reason"] == "unknown"
    replicas.ended.add("r0")
    assert ask(gateway, "GET", "/health") == (503, {"replicas": 0, "silent": []})


@pytest.mark.parametrize(
    ("headers", "body", "status", "sentence"),
    [
        ({"x-frame-id": "x"}, b"", 400, "invalid header x-frame-id: 'x'"),
        ({}, b"", 400, "invalid header x-frame-id: ''"),
        ({"x-frame-id": "1" * 19}, None, 400, "an integer of at most 18 digits"),
        ({"x-frame-id": "-5"}, None, 409, "frame -5 came after frame 0"),
        ({"x-frame-id": "1", "x-stream-token": "guess"}, None, 403, "another token"),
        ({"x-frame-id": "1", "x-session-id": ""}, None, 400, "invalid stream name ''"),
        ({"x-frame-id": "1", "x-session-id": "../b"}, None, 400, "invalid stream name '../b'"),
        ({"x-frame-id": "1"}, b"hello", 415, "are not a picture"),
        ({"x-frame-id": "1"}, bomb(10_000, 10_000), 413, "above the limit of"),
        ({"x-frame-id": "1", "x-frame-size": "9x9"}, b"x", 415, "243 bytes, not 1"),
        ({"x-frame-id": "1", "x-frame-size": "9"}, b"x", 400, "give it as 640x480"),
        ({"x-frame-id": "1", "x-frame-size": "999999x999999"}, b"x", 413, "above the limit of"),
    ],
)
def test_what_does_not_serve_is_a_status_and_a_sentence(
    gateway, replicas, pictures, headers, body, status, sentence
):
    replicas.start("r0", limits=LIMITS)
    ask(gateway, "PUT", "/stream")
    first = encoded(pictures[0])
    ask(gateway, "POST", "/frame", {**HEADERS, "x-frame-id": "0"}, first)
    found, said = ask(
        gateway, "POST", "/frame", {**HEADERS, **headers}, first if body is None else body
    )
    assert found == status and sentence in said["error"]
    assert status != 400 or said["reason"] == ("name" if "stream name" in sentence else "header")
    good = {**HEADERS, "x-frame-id": "1"}
    assert ask(gateway, "POST", "/frame", good, encoded(pictures[1]))[1]["whole"] is False


@pytest.mark.parametrize("said", [{}, {"content-length": "5"}, {"content-length": "200000"}])
def test_a_large_body_is_not_read_beyond_the_limit(gateway, replicas, said):
    replicas.start("r0")
    ask(gateway, "PUT", "/stream")
    read = []
    headers = {**HEADERS, "x-frame-id": "0", **said}
    status, answer = ask(gateway, "POST", "/frame", headers, bytes(200_000), read)
    assert status == 413 and "above the limit of" in answer["error"]
    assert len(read) == (0 if said.get("content-length") == "200000" else 101)


def test_other_paths_are_named(gateway):
    for method, path in (
        ("GET", "/"),
        ("GET", "/frame"),
        ("POST", "/stream"),
        ("GET", "/" + "x" * 999),
    ):
        status, said = ask(gateway, method, path)
        assert status == 404 and "POST /frame" in said["error"] and len(said["error"]) < 250


def test_refused_requests_are_counted(gateway, replicas):
    """Also those that no replica hears of."""
    replicas.start("r0")
    ask(gateway, "POST", "/frame", {**HEADERS, "x-frame-id": "x"})
    ask(gateway, "POST", "/frame", {**HEADERS, "x-frame-id": "0", "content-length": "200000"})
    ask(gateway, "GET", "/nothing")
    metrics = ask(gateway, "GET", "/metrics")[1]
    assert "\nmmvitaccel_refused_requests_total 3\n" in metrics
    assert 'mmvitaccel_refused_total{replica="r0",reason="large"} 0' in metrics


def test_head_asks_as_get(gateway, replicas):
    replicas.start("r0")
    assert ask(gateway, "HEAD", "/health") == (200, {"replicas": 1, "silent": []})
    assert "mmvitaccel_frames_total" in ask(gateway, "HEAD", "/metrics")[1]
    replicas.ended.add("r0")
    assert ask(gateway, "HEAD", "/health")[0] == 503
    assert ask(gateway, "HEAD", "/stream")[0] == 404


def test_every_reason_has_a_status():
    assert set(STATUS) == set(REASONS)


def test_replicas_that_say_nothing_are_a_status_and_a_sentence(gateway, replicas):
    async def broadcast(seconds, method, *args):
        raise RuntimeError("nobody is there")

    replicas.broadcast = broadcast
    assert ask(gateway, "GET", "/health") == (503, {"replicas": 0, "silent": []})
    status, said = ask(gateway, "GET", "/metrics")
    assert status == 503 and "RuntimeError: nobody is there" in said["error"]


def test_a_replica_that_hangs_is_named_and_the_others_report(replicas):
    for name in ("r0", "r1"):
        replicas.start(name)
    gateway = Gateway(replicas, report_seconds=0.2)
    replicas.hung.add("r1")
    assert ask(gateway, "GET", "/health") == (200, {"replicas": 1, "silent": ["r1"]})
    status, metrics = ask(gateway, "GET", "/metrics")
    assert status == 200 and 'mmvitaccel_frames_total{replica="r0"} 0' in metrics
    assert 'mmvitaccel_up{replica="r0"} 1' in metrics and 'frames_total{replica="r1' not in metrics
    assert 'mmvitaccel_up{replica="r1"} 0' in metrics
    replicas.hung.add("r0")
    assert ask(gateway, "GET", "/health") == (503, {"replicas": 0, "silent": ["r0", "r1"]})
