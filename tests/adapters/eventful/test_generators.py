"""Streams that are named in generators, which keep a block open while other code runs."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager

import pytest
import torch

from mmvitaccel.adapters.eventful.apply import apply_eventful
from mmvitaccel.core.eventful.frame import current_frames
from mmvitaccel.core.eventful.gates.policy import TopK
from tests.adapters.conftest import scramble, timm_vit

FRAMES = 4


@pytest.fixture
def made():
    """A model, its handle, two videos and what each gives alone."""
    model = scramble(timm_vit()).eval()
    handle = apply_eventful(model, TopK(5), max_streams=8)
    noise = torch.Generator().manual_seed(0)
    videos = torch.randn(2, FRAMES, 1, 3, 32, 32, generator=noise).cumsum(1)
    alone = []
    for number, video in enumerate(videos):
        with handle.stream(number):
            alone.append(torch.stack([model(frame) for frame in video]))
    handle.reset()
    return model, handle, videos, alone


def outputs(model, handle, name, video):
    with handle.stream(name):
        for frame in video:
            yield model(frame)


def frames(handle, name, video):
    with handle.stream(name):
        yield from video


def test_generators_that_take_turns_keep_their_streams(made):
    model, handle, videos, alone = made
    both = zip(*(outputs(model, handle, name, video) for name, video in zip("ab", videos)))
    for found, expected in zip(zip(*both), alone):
        assert torch.equal(torch.stack(found), expected)
    assert handle.streams == ["a", "b"] and current_frames() is None


def test_async_generators_that_take_turns_in_one_task(made):
    model, handle, videos, alone = made

    async def given(name, video):
        with handle.stream(name):
            for frame in video:
                await asyncio.sleep(0)
                yield model(frame)

    async def turns():
        other = given("b", videos[1])
        return [(out, await other.__anext__()) async for out in given("a", videos[0])]

    for found, expected in zip(zip(*asyncio.run(turns())), alone):
        assert torch.equal(torch.stack(found), expected)


def test_the_name_of_a_suspended_generator_does_not_reach_its_reader(made):
    model, handle, videos, alone = made
    given = outputs(model, handle, "a", videos[0])
    found = [next(given)]
    with pytest.raises(RuntimeError, match=r"without a stream .* thread, task or generator"):
        model(videos[1][0])
    with handle.stream("b"):
        model(videos[1][0])
        found.append(next(given))
    assert torch.equal(torch.stack([*found, *given]), alone[0])


def test_a_generator_of_frames_names_them(made):
    model, handle, videos, alone = made
    found = [model(frame) for frame in frames(handle, "a", videos[0])]
    assert torch.equal(torch.stack(found), alone[0]) and handle.streams == ["a"]


def test_two_generators_of_frames_at_once_are_refused(made):
    model, handle, videos, _ = made
    first, second = (frames(handle, name, video) for name, video in zip("ab", videos))
    model(next(first))
    frame = next(second)
    with pytest.raises(RuntimeError, match=r"two generators .* stream of either; name the stream"):
        model(frame)
    with handle.stream("b"):
        model(frame)


def test_a_context_manager_made_of_a_generator_names_the_code_around(made):
    model, handle, videos, alone = made

    @contextmanager
    def opened(name, first):
        with handle.stream(name):
            yield model(first)

    with opened("a", videos[0][0]) as out, opened("b", videos[1][0]) as other:
        rest = [model(frame) for frame in videos[1][1:]]
    assert torch.equal(torch.stack([other, *rest]), alone[1])
    assert torch.equal(out, alone[0][0])


def test_a_generator_that_is_left_or_breaks_off_leaves_no_name(made):
    model, handle, videos, _ = made

    def broken():
        with handle.stream("a"):
            yield model(videos[0][0])
            raise OSError("planted")

    with pytest.raises(OSError, match="planted"):
        list(broken())
    given = outputs(model, handle, "a", videos[0])
    next(given)
    del given
    model(videos[1][0])
    assert handle.streams == ["a", "unnamed"] and current_frames() is None
