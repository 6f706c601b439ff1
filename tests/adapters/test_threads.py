"""Methods called from several threads at once: each call gives what it gives alone."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from mmvitaccel.adapters.attach import link
from mmvitaccel.adapters.eventful.apply import apply_eventful
from mmvitaccel.adapters.eventful.neck import apply_eventful_neck
from mmvitaccel.adapters.tome.apply import apply_tome
from mmvitaccel.core.eventful.frame import current_frames, frames_of, streams
from mmvitaccel.core.eventful.gates.policy import Threshold, TopK
from mmvitaccel.core.macs.counter import MacsCounter
from mmvitaccel.models.vitdet.simple_fpn import SimpleFPN
from tests.adapters.conftest import HOSTS, scramble, timm_vit

THREADS, FRAMES = 6, 8
TOME_HOSTS = ["timm class token", "timm features_only", "mmaction2 VideoMAE", "mmvitaccel ViTDet"]
EVENTFUL_HOSTS = ["timm class token", "timm EVA-02", "mmpretrain maps", "mmvitaccel ViTDet"]


@pytest.fixture(autouse=True)
def _many_switches():
    """Threads take turns as often as Python lets them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def built(name):
    if name.startswith("timm"):
        pytest.importorskip("timm", reason="no timm here")
    model = scramble(HOSTS[name].build())
    model.eval()
    return model


def video(shape, seed, frames=FRAMES):
    """Frames (1, ...) of a slowly changing scene."""
    noise = torch.Generator().manual_seed(seed)
    frame = torch.randn(1, *shape[1:], generator=noise)
    made = []
    for _ in range(frames):
        frame = frame + 0.1 * torch.randn(frame.shape, generator=noise)
        made.append(frame)
    return made


def flat(out):
    """Tensors of a model's output, in order."""
    if isinstance(out, torch.Tensor):
        return [out]
    return [tensor for part in out for tensor in flat(part)]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(flat(a), flat(b), strict=True))


def at_once(work, number=THREADS):
    """Results of ``work(0)``, ``work(1)``, ... in threads that start together."""
    start = threading.Barrier(number)

    def run(index):
        start.wait()
        return work(index)

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(run, range(number)))


@pytest.mark.parametrize("name", TOME_HOSTS)
def test_tome(name):
    model = built(name)
    handle = apply_tome(model, r=3)
    videos = [video(HOSTS[name].shape, seed, 10) for seed in range(THREADS)]
    with torch.no_grad():
        alone = []
        for frames in videos:
            alone.append(([model(x) for x in frames], handle.info.sizes))

        def work(index):
            with torch.no_grad():
                outs = [model(x) for x in videos[index]]
            return outs, handle.info.sizes

        for found, expected in zip(at_once(work), alone):
            assert all(map(same, found[0], expected[0]))
            assert same(found[1], expected[1])


def test_r_and_options_of_a_pass_are_those_at_its_start():
    model = built("timm class token")
    handle = apply_tome(model, r=3)
    x, inside, go_on = torch.randn(1, 3, 32, 32), threading.Event(), threading.Event()

    def wait(*_):
        inside.set()
        assert go_on.wait(10)

    with torch.no_grad():
        expected = model(x)
        hook = model.blocks[0].register_forward_hook(wait)
        with ThreadPoolExecutor(1) as pool:
            found = pool.submit(torch.no_grad()(model), x)
            assert inside.wait(10)
            handle.r = 1
            go_on.set()
            assert torch.equal(found.result(), expected)
        hook.remove()
        assert not torch.equal(model(x), expected)


def test_tome_trains_in_threads_with_checkpoints():
    model = built("mmvitaccel ViTDet").train()
    apply_tome(model, r=3)
    inputs = [torch.randn(1, 3, 48, 64) for _ in range(4)]

    def gradient(index):
        x = inputs[index].clone().requires_grad_()
        return torch.autograd.grad(model(x)[-1].square().sum(), x)[0]

    expected = [gradient(index) for index in range(4)]
    model.with_cp = True
    for found, wanted in zip(at_once(gradient, 4), expected):
        assert torch.allclose(found, wanted, atol=1e-6)


def of_streams(model, handle, videos):
    """What each video gives, all streams alone."""
    alone = []
    for index, frames in enumerate(videos):
        outs = []
        for frame in frames:
            with handle.stream(index):
                outs.append(model(frame))
        alone.append((outs, handle.frames[0].passed))
    handle.reset()
    return alone


@pytest.mark.parametrize("max_streams", [THREADS, 2])
@pytest.mark.parametrize("name", EVENTFUL_HOSTS)
def test_eventful_streams_side_by_side(name, max_streams):
    model = built(name)
    handle = apply_eventful(model, TopK(5), max_streams=max_streams)
    videos = [video(HOSTS[name].shape, seed) for seed in range(THREADS)]
    alone = of_streams(model, handle, videos)

    def work(index):
        outs, first = [], []
        for number, frame in enumerate(videos[index]):
            with handle.stream(index, frame_id=number):
                outs.append(model(frame))
            first.append(handle.frames[0].first)
            assert handle.frames[0].stream == index
        return outs, first, handle.frames[0].passed

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # streams that were dropped for others
        for index, (outs, first, passed) in enumerate(at_once(work)):
            if any(first[1:]):  # dropped for others: clean from there
                assert max_streams < THREADS
                last = max(number for number, clean in enumerate(first) if clean)
                handle.reset()
                for number in range(last, FRAMES):
                    with handle.stream(index):
                        assert same(model(videos[index][number]), outs[number])
            else:
                assert all(map(same, outs, alone[index][0]))
                assert passed == alone[index][1]
    assert len(handle.streams) <= max_streams


def test_eventful_neck_streams_side_by_side():
    neck = scramble(SimpleFPN(in_channels=16, out_channels=16)).eval()
    handle = apply_eventful_neck(neck, TopK(9), max_streams=THREADS)
    videos = [video((1, 16, 8, 12), seed) for seed in range(THREADS)]
    alone = of_streams(neck, handle, videos)

    def work(index):
        outs = []
        for frame in videos[index]:
            with handle.stream(index):
                outs.append(neck(frame))
        return outs

    for found, (expected, _) in zip(at_once(work), alone):
        assert all(map(same, found, expected))


def test_frames_without_a_name_are_a_stream_of_their_thread():
    model = built("timm class token")
    handle = apply_eventful(model, TopK(5), max_streams=THREADS)
    videos = [video((1, 3, 32, 32), seed) for seed in range(THREADS)]
    alone = of_streams(model, handle, videos)
    found = at_once(lambda index: [model(frame) for frame in videos[index]])
    for outs, (expected, _) in zip(found, alone):
        assert all(map(same, outs, expected))
    assert len(set(handle.streams)) == THREADS
    model(videos[0][0])
    assert handle.streams[-1] == "unnamed"


class Held:
    """A model whose second block waits in the middle of one thread's frame."""

    def __init__(self, model):
        self.inside, self.go_on, self.thread = threading.Event(), threading.Event(), None
        self.hook = model.blocks[1].register_forward_pre_hook(self)

    def __deepcopy__(self, memo):
        return self

    def __call__(self, *_):
        if threading.current_thread().name.startswith("held"):
            self.inside.set()
            assert self.go_on.wait(10)


@pytest.fixture
def held():
    """Yields a function that starts a frame of stream "a" and leaves it within the blocks."""
    pools = []

    def start(model, handle, frame):
        stop = Held(model)

        def run():
            with handle.stream("a"):
                return model(frame)

        pool = ThreadPoolExecutor(1, thread_name_prefix="held")
        future = pool.submit(run)
        assert stop.inside.wait(10)
        pools.append((pool, stop))
        return stop, future

    yield start
    for pool, stop in pools:
        stop.go_on.set()
        stop.hook.remove()
        pool.shutdown()


def test_a_second_call_on_a_stream_is_refused_and_changes_nothing(held):
    model = built("timm class token")
    handle = apply_eventful(model, TopK(5))
    frames = video((1, 3, 32, 32), 0, 3)
    (expected, _), *_ = of_streams(model, handle, [frames])
    with handle.stream("a"):
        model(frames[0])
    stop, future = held(model, handle, frames[1])
    with (
        handle.stream("a"),
        pytest.raises(RuntimeError, match=r"'a' was given in thread 'MainThread' .* 'held_0'"),
    ):
        model(frames[2])
    with handle.stream("b"):
        assert torch.equal(model(frames[0]), expected[0])
    stop.go_on.set()
    assert torch.equal(future.result(), expected[1])
    with handle.stream("a"):
        assert torch.equal(model(frames[2]), expected[2])


def test_policy_reset_and_eviction_do_not_disturb_a_frame_that_is_computed(held):
    model = built("timm class token")
    handle = apply_eventful(model, TopK(5), max_streams=1)
    frames = video((1, 3, 32, 32), 0, 3)
    (expected, _), *_ = of_streams(model, handle, [frames])
    with handle.stream("a"):
        model(frames[0])
    stop, future = held(model, handle, frames[1])
    handle.policy.k = 1
    handle.policy = Threshold(0.5)
    with handle.stream("b"):
        assert torch.equal(model(frames[0]), expected[0])
    assert handle.streams == ["a"]
    handle.reset("a")
    with handle.stream("a"):
        assert torch.equal(model(frames[0]), expected[0])
    stop.go_on.set()
    assert torch.equal(future.result(), expected[1])
    assert handle.streams == ["a"]


def test_a_name_that_does_not_reach_the_thread_is_said():
    model = built("timm class token")
    handle = apply_eventful(model, TopK(5))
    frames = video((1, 3, 32, 32), 0, 2)
    (expected, _), *_ = of_streams(model, handle, [frames])

    async def by_executor():
        with handle.stream("a"):
            return await asyncio.get_running_loop().run_in_executor(None, model, frames[0])

    async def by_thread(name):
        outs = []
        for frame in frames:
            with handle.stream(name):
                outs.append(await asyncio.to_thread(model, frame))
        return outs

    async def several():
        return await asyncio.gather(*map(by_thread, "abcd"))

    with pytest.raises(RuntimeError, match=r"without a stream came in thread 'asyncio_0'"):
        asyncio.run(by_executor())
    assert handle.streams == []
    assert all(all(map(same, outs, expected)) for outs in asyncio.run(several()))
    assert sorted(handle.streams) == list("abcd")


@pytest.mark.parametrize("where", ["between the blocks", "in a block", "behind the first frame"])
def test_a_frame_that_fails_leaves_the_stream_clean_and_free(where):
    model = built("timm class token")
    handle = apply_eventful(model, TopK(5))
    frames = video((1, 3, 32, 32), 0, 3)

    def fail(*_):
        raise KeyError("planted")

    at = model.blocks[1].mlp.fc1 if where == "in a block" else model.blocks[1]
    if where != "behind the first frame":
        with handle.stream("a"):
            model(frames[0])
    hook = at.register_forward_pre_hook(fail)
    with handle.stream("a"), pytest.raises(KeyError, match="planted"):
        model(frames[1])
    hook.remove()
    found = []
    for thread in range(2):  # this one, and another

        def run(number=thread):
            with handle.stream("a"):
                return model(frames[1 + number])

        with ThreadPoolExecutor(1) as pool:
            found.append(pool.submit(run).result())
        if thread == 0:
            assert handle.frames[0].first
    handle.reset()
    for frame, out in zip(frames[1:], found):
        with handle.stream("a"):
            assert torch.equal(model(frame), out)


def test_a_thread_that_ends_within_a_frame_leaves_the_stream_to_others():
    model = built("timm class token")
    handle = apply_eventful(model, TopK(5))
    frames = video((1, 3, 32, 32), 0, 2)

    def half():
        with handle.stream("a"), torch.no_grad():
            model.blocks[0](model.patch_embed(frames[0]))  # by hand, and never goes on

    thread = threading.Thread(target=half)
    thread.start()
    thread.join()
    with handle.stream("a"):
        out = model(frames[1])
    assert handle.frames[0].first
    handle.reset()
    with handle.stream("a"):
        assert torch.equal(model(frames[1]), out)


@pytest.mark.parametrize("method", ["ToMe", "Eventful"])
def test_a_hook_may_call_the_model_within_its_own_pass(method):
    model = built("timm class token")
    handle = apply_tome(model, r=3) if method == "ToMe" else apply_eventful(model, TopK(5))
    outer, inner = video((1, 3, 32, 32), 0, 3), video((1, 3, 32, 32), 1, 3)

    def run(frame, stream):
        with torch.no_grad(), streams(frames_of(stream)):
            return model(frame)

    expected = [(run(a, "a"), run(b, "b")) for a, b in zip(outer, inner)]
    if method == "Eventful":
        handle.reset()
    found, waiting = [], []

    def hook(*_):
        if waiting:
            found.append(run(waiting.pop(), "b"))

    model.blocks[1].register_forward_hook(hook)
    for a, b, (wanted, wanted_inside) in zip(outer, inner, expected):
        waiting.append(b)
        assert torch.equal(run(a, "a"), wanted)
        assert torch.equal(found.pop(), wanted_inside)


def test_replicas_as_data_parallel_makes_them():
    model = built("timm class token")
    apply_tome(model, r=3)
    inputs = [torch.randn(1, 3, 32, 32) for _ in range(4)]
    with torch.no_grad():
        expected = [model(x) for x in inputs]

    def replicate(module):
        replica = module._replicate_for_data_parallel()
        replica._parameters = module._parameters
        for name, child in module._modules.items():
            replica._modules[name] = None if child is None else replicate(child)
        return replica

    replicas = [replicate(model) for _ in inputs]
    assert type(replicas[0]) is type(model)
    found = at_once(lambda index: torch.no_grad()(replicas[index])(inputs[index]), 4)
    assert all(map(same, found, expected))


@pytest.mark.skipif(
    not hasattr(torch.compiler, "is_compiling"), reason="torch < 2.3 does not compile ToMe"
)
def test_compiled_models():
    model = built("timm class token")
    apply_tome(model, r=3)
    compiled = torch.compile(model, backend="eager", dynamic=False)
    videos = [video((1, 3, 32, 32), seed) for seed in range(4)]
    with torch.no_grad():
        expected = [[model(x) for x in frames] for frames in videos]
        compiled(videos[0][0])
    found = at_once(lambda index: [torch.no_grad()(compiled)(x) for x in videos[index]], 4)
    for outs, wanted in zip(found, expected):
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(outs, wanted))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_finds_streams_free(held):
    model = built("timm class token")
    handle = apply_eventful(model, TopK(5))
    frames = video((1, 3, 32, 32), 0, 2)
    expected = model(frames[1])
    handle.reset()
    with handle.stream("a"):
        model(frames[0])
    stop, future = held(model, handle, frames[1])
    lock = link(model).state.store._lock
    taken, release = threading.Event(), threading.Event()

    def hold_the_lock():
        with lock:
            taken.set()
            release.wait(30)

    holder = threading.Thread(target=hold_the_lock)
    holder.start()
    assert taken.wait(10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of forking with threads
        child = os.fork()
    if child == 0:
        good = False
        try:
            with handle.stream("a"):
                good = torch.equal(model(frames[1]), expected) and handle.frames[0].first
            good = good and torch.equal(model(frames[1]), expected)
        finally:
            os._exit(0 if good else 3)
    release.set()
    holder.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    stop.go_on.set()
    future.result()


def test_copies_and_state_dicts_carry_no_stream_while_threads_compute(held):
    model = built("timm class token")
    keys = list(model.state_dict())
    handle = apply_eventful(model, TopK(5))
    frames = video((1, 3, 32, 32), 0, 2)
    stop, future = held(model, handle, frames[0])
    assert list(model.state_dict()) == keys
    twin = copy.deepcopy(model)
    state = link(twin).state
    assert (state.store.names, state.running, state.frames) == ([], None, [])
    with pytest.raises(RuntimeError, match="VisionTransformer with Eventful on it cannot be pick"):
        pickle.dumps(model)
    out = twin(frames[0])  # no stream is named here for the copy
    stop.go_on.set()
    assert torch.equal(future.result(), out)
    assert handle.streams == ["a"]


def test_counting_in_one_thread_while_another_computes():
    model = timm_vit().eval()
    apply_tome(model, r=3)
    x = torch.randn(1, 3, 32, 32)

    def count(_):
        reports = []
        for _ in range(5):
            with torch.no_grad(), MacsCounter(model) as counter:
                model(x)
            reports.append(counter.report())
        return reports

    expected = count(0)[0]
    for reports in at_once(count, 4):
        assert all(report == expected for report in reports)


def test_what_a_detector_says_of_its_images_holds_in_its_thread():
    from mmvitaccel.adapters.eventful.streams.metainfo import FollowMetainfo

    class Sample:
        def __init__(self, video_id):
            self.metainfo = dict(video_id=video_id, frame_id=0)

    class Detector(nn.Module):
        def forward(self, inputs, data_samples):
            both.wait(10)
            return current_frames()

    detector, both = Detector().eval(), threading.Barrier(4)
    FollowMetainfo().register(detector)

    def work(index):
        return [detector(None, [Sample(index)]) for _ in range(5)]

    for index, seen in enumerate(at_once(work, 4)):
        assert [[frame.stream[0] for frame in clips.frames] for clips in seen] == [[index]] * 5


@pytest.mark.parametrize("change", ["remove", "attach again"])
@pytest.mark.parametrize("method", ["ToMe", "Eventful"])
def test_a_method_that_changes_during_a_pass_is_refused(method, change):
    model = scramble(timm_vit()).eval()
    put = {
        "ToMe": lambda: apply_tome(model, 3),
        "Eventful": lambda: apply_eventful(model, TopK(5)),
    }[method]
    x, current = torch.randn(1, 3, 32, 32), []

    def steer(*_):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is replaced
            current[-1].remove() if change == "remove" else put()

    def in_a_thread(*_):
        with ThreadPoolExecutor(1) as pool:
            pool.submit(steer).result()

    for by in (steer, in_a_thread):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            current.append(put())
        hook = model.blocks[1].register_forward_hook(by)
        with torch.no_grad(), pytest.raises(RuntimeError, match=rf"^{method} was removed from"):
            model(x)
        hook.remove()
        with torch.no_grad():
            assert torch.isfinite(model(x)).all()


@pytest.mark.parametrize("method", ["ToMe", "Eventful"])
def test_a_method_that_is_removed_while_a_block_is_called_is_refused(method):
    model = scramble(timm_vit()).eval()
    handle = apply_tome(model, 3) if method == "ToMe" else apply_eventful(model, TopK(5))
    forward = model.blocks[1].forward
    handle.remove()
    with pytest.raises(RuntimeError, match=rf"{method} was removed from Block or attached again"):
        forward(torch.randn(1, 17, 32))
