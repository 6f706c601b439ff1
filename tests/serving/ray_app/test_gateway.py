"""Streams over several replicas: they stick, move with a whole frame, and lose nothing silently."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from mmvitaccel.serving import Refused
from mmvitaccel.serving.ray_app.gateway import Gateway
from mmvitaccel.serving.ray_app.replica import Replica
from tests.serving.conftest import encoded

TOKEN = "secret"


def test_a_stream_goes_on_on_its_replica(gateway, replicas, pictures):
    model = replicas.start("r0")

    async def play():
        await gateway.open_stream("a", TOKEN)
        return [await gateway.submit("a", n, p, TOKEN) for n, p in enumerate(pictures)]

    answers = asyncio.run(play())
    assert [a.whole for a in answers] == [True] + [False] * 5
    assert isinstance(answers[0].output[0], np.ndarray)
    assert model.batches == [[("a", n)] for n in range(6)]
    assert gateway.counts == {"lost_frames": 0, "moved_streams": 0, "refused_requests": 0}


def test_a_moved_stream_begins_whole_keeps_its_order_and_is_forgotten_where_it_was(
    gateway, replicas, pictures
):
    old, new = replicas.start("r0"), replicas.start("r1")
    replicas.of = {"a": "r0", "b": "r0"}

    async def play():
        for name in "ab":
            await gateway.open_stream(name, TOKEN)
            for number in (3, 4):
                await gateway.submit(name, number, pictures[number], TOKEN)
        replicas.of["a"] = "r1"
        with pytest.raises(Refused, match="frame 4 came after frame 4"):
            await gateway.submit("a", 4, pictures[4], TOKEN)
        moved = await gateway.submit("a", 5, pictures[5], TOKEN)
        stays = await gateway.submit("b", 5, pictures[5], TOKEN)
        return moved, stays

    moved, stays = asyncio.run(play())
    assert moved.whole and not stays.whole
    assert old.handle.streams == ["b"] and new.handle.streams == ["a"]
    assert replicas.all["r0"].worker.report().streams == 1
    assert gateway.counts["moved_streams"] == 1


def test_another_token_moves_nothing(gateway, replicas, pictures):
    replicas.start("r0")
    replicas.start("r1")

    async def play():
        await gateway.open_stream("a", TOKEN)
        await gateway.submit("a", 0, pictures[0], TOKEN)
        replicas.of["a"] = "r1"
        with pytest.raises(Refused, match="stream 'a' is not open") as refused:
            await gateway.submit("a", 1, pictures[1], "guess")
        assert refused.value.reason == "unknown"
        with pytest.raises(Refused, match="stream 'a' was opened with another token"):
            await gateway.open_stream("a", "guess")
        return await gateway.submit("a", 1, pictures[1], TOKEN)

    assert asyncio.run(play()).whole


def test_a_gateway_that_knows_nothing_finds_the_streams_that_are_open(replicas, pictures):
    replicas.start("r0")

    async def play():
        first = Gateway(replicas)
        await first.open_stream("a", TOKEN)
        await first.submit("a", 0, pictures[0], TOKEN)
        after = Gateway(replicas)
        with pytest.raises(Refused, match="another token"):
            await after.submit("a", 1, pictures[1], "guess")
        return await after.submit("a", 1, pictures[1], TOKEN)

    assert not asyncio.run(play()).whole


def test_a_replica_that_ends_with_a_frame_is_named_and_the_next_is_whole(
    gateway, replicas, pictures
):
    model = replicas.start("r0")
    replicas.start("r1")

    async def play():
        await gateway.open_stream("a", TOKEN)
        await gateway.submit("a", 0, pictures[0], TOKEN)
        model.hold()
        frame = asyncio.ensure_future(gateway.submit("a", 1, pictures[1], TOKEN))
        while not model.busy.is_set():
            await asyncio.sleep(0.01)
        replicas.ended.add("r0")
        with pytest.raises(Refused, match=r"its replica ended .*\(ConnectionError: the actor") as e:
            await frame
        assert e.value.reason == "lost"
        with pytest.raises(Refused, match="send the next frame"):  # twice in a row
            await gateway.submit("a", 2, pictures[2], TOKEN)
        model.let.set()
        replicas.of["a"] = "r1"
        return await gateway.submit("a", 3, pictures[3], TOKEN)

    assert asyncio.run(play()).whole
    assert gateway.counts == {"lost_frames": 2, "moved_streams": 1, "refused_requests": 0}


def test_what_takes_too_long_is_given_up_and_left_out(replicas, pictures):
    model = replicas.start("r0")
    gateway = Gateway(replicas, answer_seconds=0.2)

    async def play():
        await gateway.open_stream("a", TOKEN)
        await gateway.submit("a", 0, pictures[0], TOKEN)
        model.hold()
        with pytest.raises(Refused, match=r"no answer within 0\.2 s"):
            await gateway.submit("a", 1, pictures[1], TOKEN)
        model.let.set()

    asyncio.run(play())


def test_a_client_that_vanishes_is_not_waited_for(gateway, replicas, pictures):
    model = replicas.start("r0")

    async def play():
        for name in "ab":
            await gateway.open_stream(name, TOKEN)
        model.hold()
        kept = asyncio.ensure_future(gateway.submit("a", 0, pictures[0], TOKEN))
        while not model.busy.is_set():
            await asyncio.sleep(0.01)
        gone = asyncio.ensure_future(replicas.all["r0"].submit("b", 0, pictures[0], TOKEN))
        while replicas.all["r0"].worker.report().waiting < 2:
            await asyncio.sleep(0.01)
        gone.cancel()
        await asyncio.sleep(0.05)
        model.let.set()
        answer = await kept
        await gateway.submit("a", 1, pictures[1], TOKEN)
        return answer

    assert asyncio.run(play()).whole
    report = replicas.all["r0"].worker.report()
    assert (report.counts.cancelled, report.counts.frames) == (1, 2)
    assert ("b", 0) not in model.passed


def test_files_raw_pixels_and_pictures_give_the_same(gateway, replicas, pictures):
    replicas.start("r0")

    async def play():
        found = []
        for name, frame, size in (
            ("array", pictures[0], None),
            ("png", encoded(pictures[0]), None),
            ("raw", pictures[0].tobytes(), (48, 32)),
        ):
            await gateway.open_stream(name, TOKEN)
            found.append(await gateway.submit(name, 0, frame, TOKEN, size))
        return found

    array, png, raw = (answer.output[0] for answer in asyncio.run(play()))
    assert np.array_equal(array, png) and np.array_equal(array, raw)


def test_closing_and_reports(gateway, replicas, pictures):
    replicas.start("r0")
    replicas.start("r1")

    async def play():
        await gateway.open_stream("a", TOKEN)
        await gateway.submit("a", 0, pictures[0], TOKEN)
        await gateway.close_stream("a", TOKEN)
        with pytest.raises(Refused, match="stream 'a' is not open"):
            await gateway.submit("a", 1, pictures[1], TOKEN)
        with pytest.raises(Refused, match="invalid stream name"):
            await gateway.submit("a/b", 1, pictures[1], TOKEN)
        replicas.ended.add("r1")
        return await gateway.reports()

    reports, silent = asyncio.run(play())
    assert list(reports) == ["r0"] and reports["r0"].counts.frames == 1 and silent == []


def test_health_is_that_of_the_worker(replicas):
    replicas.start("r0")
    replica = replicas.all["r0"]
    replica.check_health()
    replica.worker.close()
    with pytest.raises(RuntimeError, match="replica r0: the worker's thread has ended"):
        replica.check_health()


def test_a_model_that_hangs_is_not_healthy(replicas, pictures):
    now, model = [0.0], replicas.start("r0", clock=lambda: now[0])
    replica = Replica("r1", lambda: replicas.all["r0"].worker, most_seconds=60)

    async def play():
        await replica.open_stream("a", TOKEN)
        model.hold()
        frame = asyncio.ensure_future(replica.submit("a", 0, pictures[0], TOKEN))
        while not model.busy.is_set():
            await asyncio.sleep(0.01)
        now[0] = 59.0
        replica.check_health()
        now[0] = 61.0
        with pytest.raises(RuntimeError, match="r1: the model has computed one batch for 61 s"):
            replica.check_health()
        model.let.set()
        await frame
        now[0] = 200.0
        replica.check_health()

    asyncio.run(play())


def test_a_stream_that_is_closed_while_a_frame_is_computed_leaves_its_name_free(
    gateway, replicas, pictures
):
    model = replicas.start("r0")

    async def play(known):
        if known:
            await gateway.open_stream("a", TOKEN)
        else:  # the gateway was started again meanwhile
            await replicas.all["r0"].open_stream("a", TOKEN)
        model.hold()
        frame = asyncio.ensure_future(gateway.submit("a", 7, pictures[0], TOKEN))
        while not model.busy.is_set():
            await asyncio.sleep(0.01)
        await gateway.close_stream("a", TOKEN)
        model.let.set()
        assert (await frame).frame_id == 7
        await gateway.open_stream("a", "another")
        assert (await gateway.submit("a", 0, pictures[1], "another")).whole
        await gateway.close_stream("a", "another")

    for known in (True, False):
        asyncio.run(play(known))


def test_a_frame_does_not_open_a_stream_again_that_is_being_closed(gateway, replicas, pictures):
    replicas.start("r0")
    call = replicas.call

    async def late(stream, method, *args):
        reply = await call(stream, method, *args)
        if method == "close_stream":  # the replica has closed it, the gateway does not know yet
            with pytest.raises(Refused, match="stream 'a' is not open"):
                await gateway.submit("a", 1, pictures[1], TOKEN)
        return reply

    async def play():
        await gateway.open_stream("a", TOKEN)
        await gateway.submit("a", 0, pictures[0], TOKEN)
        replicas.call = late
        await gateway.close_stream("a", TOKEN)
        assert replicas.all["r0"].worker.report().streams == 0
        await gateway.open_stream("a", "another")

    asyncio.run(play())


def test_a_stream_that_is_closed_while_it_moves_is_answered(gateway, replicas, pictures):
    for name in ("r0", "r1"):
        replicas.start(name)
    broadcast = replicas.broadcast

    async def closing(seconds, method, *args):
        replicas.broadcast = broadcast
        await gateway.close_stream("a", TOKEN)
        return await broadcast(seconds, method, *args)

    async def play():
        await gateway.open_stream("a", TOKEN)
        await gateway.submit("a", 0, pictures[0], TOKEN)
        replicas.of["a"], replicas.broadcast = "r1", closing
        return await gateway.submit("a", 1, pictures[1], TOKEN)

    assert asyncio.run(play()).frame_id == 1


def test_a_stream_that_would_have_moved_is_closed_wherever_it_is(gateway, replicas, pictures):
    for name in ("r0", "r1"):
        replicas.start(name)

    async def play():
        await gateway.open_stream("a", TOKEN)
        await gateway.submit("a", 5, pictures[0], TOKEN)
        replicas.of["a"] = "r1"
        with pytest.raises(Refused, match="stream 'a' is not open"):
            await gateway.close_stream("a", "guess")
        await gateway.close_stream("a", TOKEN)
        assert replicas.all["r0"].worker.report().streams == 0
        with pytest.raises(Refused, match="stream 'a' is not open"):
            await gateway.close_stream("a", TOKEN)
        await gateway.open_stream("a", "another")
        return await gateway.submit("a", 0, pictures[1], "another")

    assert asyncio.run(play()).frame_id == 0


def test_a_stream_whose_frames_get_no_answer_takes_no_place_of_others(gateway, replicas, pictures):
    """Its replica hangs, so that no frame is dropped."""
    replicas.start("r0")
    call = replicas.call

    async def hangs(stream, method, *args):
        if (stream, method) == ("a", "submit"):
            await asyncio.Event().wait()
        return await call(stream, method, *args)

    async def play():
        for name in "ab":
            await gateway.open_stream(name, TOKEN)
        replicas.call = hangs
        frames = [
            asyncio.ensure_future(gateway.submit("a", n, pictures[0], TOKEN)) for n in range(33)
        ]
        _, waiting = await asyncio.wait(frames, return_when=asyncio.FIRST_COMPLETED)
        assert len(waiting) == 32
        with pytest.raises(Refused, match="stream 'a': 32 frames have no answer yet") as refused:
            await frames[-1]
        assert refused.value.reason == "full"
        assert (await gateway.submit("b", 0, pictures[0], TOKEN)).whole
        for frame in waiting:
            frame.cancel()
        await asyncio.wait(waiting)
        replicas.call = call
        return await gateway.submit("a", 40, pictures[0], TOKEN)

    assert asyncio.run(play()).frame_id == 40


@pytest.mark.parametrize("way", ["fails", "hangs"])
def test_replicas_that_do_not_forget_keep_no_answer_back(replicas, pictures, way):
    for name in ("r0", "r1"):
        replicas.start(name)
    gateway = Gateway(replicas, answer_seconds=10**6, report_seconds=0.2)

    async def broadcast(seconds, method, *args):
        raise RuntimeError("no replica is there")

    async def play():
        await gateway.open_stream("a", TOKEN)
        await gateway.submit("a", 0, pictures[0], TOKEN)
        replicas.of["a"] = "r1"
        if way == "hangs":
            replicas.hung.add("r0")  # for good
            return await asyncio.wait_for(gateway.submit("a", 1, pictures[1], TOKEN), 60)
        replicas.broadcast = broadcast
        moved = await gateway.submit("a", 1, pictures[1], TOKEN)
        with pytest.raises(Refused, match=r"no replica can be asked .* \(RuntimeError: no") as e:
            await gateway.reports()
        assert e.value.reason == "lost"
        return moved

    assert asyncio.run(play()).whole
