"""The small form of the load on the service, without Ray: its HTTP, gateway and replicas."""

from __future__ import annotations

import asyncio
import threading

import pytest

from mmvitaccel.serving import FrameLimits, StreamWorker
from mmvitaccel.serving.ray_app.gateway import Gateway, Said
from mmvitaccel.serving.ray_app.http import respond
from mmvitaccel.serving.ray_app.replica import Replica
from mmvitaccel.testing import service

CAP = 4e6


class TwoReplicas:
    """Two replicas in this process, streams by their names."""

    def __init__(self):
        self.all = [
            Replica(
                f"r{n}", lambda: StreamWorker(service.make(), max_open=64, max_bytes=int(CAP / 2))
            )
            for n in range(2)
        ]

    async def call(self, stream, method, *args):
        place = sum(stream.encode()) % 2
        return await getattr(self.all[place], method)(*args)

    async def broadcast(self, seconds, method, *args):
        return Said([await getattr(replica, method)(*args) for replica in self.all], [])


@pytest.fixture
def port():
    """HTTP by the service's own answers, on a loop of a thread."""
    replicas, ready, found = TwoReplicas(), threading.Event(), {}

    async def one(reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, path, _ = head[0].split()
        headers = dict(line.split(": ", 1) for line in head[1:] if line)
        body = await reader.readexactly(int(headers["content-length"]))

        async def parts():
            yield body

        said = await respond(found["gateway"], FrameLimits(), method, path, headers, parts())
        writer.write(f"HTTP/1.1 {said.status} x\r\ncontent-type: x\r\n\r\n".encode() + said.body)
        await writer.drain()
        writer.close()

    async def serve():
        found["gateway"], found["stop"] = Gateway(replicas), asyncio.Event()
        found["loop"] = asyncio.get_running_loop()
        server = await asyncio.start_server(one, "127.0.0.1", 0)
        found["port"] = server.sockets[0].getsockname()[1]
        ready.set()
        async with server:
            await found["stop"].wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(30)
    yield found["port"]
    found["loop"].call_soon_threadsafe(found["stop"].set)
    thread.join()
    for replica in replicas.all:
        replica.worker.close()


@pytest.mark.parametrize(
    ("streams", "way"), [(1, "slow readers"), (4, "bursts"), (16, "poisson"), (20, "bursts")]
)
def test_a_load(load_script, port, streams, way):
    script = load_script("serving_load")
    result = script.play(port, streams, way, 1.0, seed=streams, cap=CAP)
    assert result.answered + result.dropped == result.sent > 0
    assert result.whole >= min(streams, result.answered) > 0
    assert 0 < result.state_megabytes <= CAP / 1e6


def test_what_is_mixed_or_lost_is_a_mistake(load_script, port):
    script = load_script("serving_load")
    load = script.Load(port, 2, "poisson", 0.5, seed=1)
    asyncio.run(load.run())
    load.check()
    one, other = load.names
    kept = load.answers[one][0]
    load.answers[one][0] = {**kept, "output": load.answers[other][0]["output"]}
    with pytest.raises(script.Mistake, match=r"load-1-0, frame 0: .* from the stream alone"):
        load.check()
    del load.answers[one][0]
    with pytest.raises(script.Mistake, match=r"of \d+ frames \d+ were answered"):
        load.check()
    load.reasons["failed"] = 1
    with pytest.raises(script.Mistake, match=r"were refused for .*failed"):
        load.check()
