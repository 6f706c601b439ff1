"""One model for many streams: right for each, whatever the others do."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor

import numpy as np
import pytest
import torch

from mmvitaccel import Budget, TopK, apply_eventful
from mmvitaccel.serving import Refused, StreamWorker, TensorModel
from mmvitaccel.testing.service import NUM_TOKENS, SHAPE, small_vitdet
from tests.serving.conftest import HeldModel, held_up, video

TOKEN = "secret"


class Replay:
    """Gives the selections of a frame again, gate by gate."""

    def __init__(self):
        self.coming = []

    def select(self, error):
        return self.coming.pop(0).nonzero()[:, 1][None]


def expect_as_alone(model, answers, frames):
    """Each answer equals the stream's own model, made to choose the same tokens."""
    alone, replay = small_vitdet(), Replay()
    handle = apply_eventful(alone, replay, max_streams=100)
    for answer in sorted(answers, key=lambda a: a.frame_id):
        name, frame_id = answer.stream, answer.frame_id
        passed = model.passed[name, frame_id]
        if answer.whole:
            handle.reset(name)
        replay.coming = [] if answer.whole else list(passed.flatten(0, 1))
        with torch.no_grad(), handle.stream(name, frame_id):
            (expected,) = alone(frames[name][frame_id][None])
        torch.testing.assert_close(answer.output[0], expected, rtol=0, atol=1e-5)
        assert answer.computed == pytest.approx(float(passed.float().mean()))


def test_each_stream_is_as_alone_at_the_same_selections(serve):
    model = HeldModel(k=5, floor=1)
    worker = serve(model)
    frames = {f"cam-{seed}": list(video(seed, 6)) for seed in range(4)}
    for name in frames:
        worker.open_stream(name, TOKEN)
    answers = []
    for number in range(6):
        coming = [worker.submit(n, number, f[number], TOKEN) for n, f in frames.items()]
        answers += [future.result(30) for future in coming]
    assert {(a.stream, a.frame_id) for a in answers} == {(n, i) for n in frames for i in range(6)}
    assert [a.whole for a in answers] == [a.frame_id == 0 for a in answers]
    expect_as_alone(model, answers, frames)


def test_frames_that_wait_go_together_and_a_busy_camera_borrows_from_quiet_ones(serve):
    model = HeldModel(k=4, floor=1)
    worker = serve(model)
    frames = {name: list(video(seed, 3)) for name, seed in (("still", 0), ("slow", 1), ("busy", 3))}
    answers = []
    for name in ("first", *frames):
        worker.open_stream(name, TOKEN)
    for number in range(3):
        first = held_up(
            worker, model, lambda n=number: worker.submit("first", n, frames["still"][0], TOKEN)
        )
        coming = [worker.submit(n, number, f[number], TOKEN) for n, f in frames.items()]
        assert worker.report().waiting == 4
        model.let.set()
        answers += [future.result(30) for future in coming]
        assert first.result(30).batch == 1
        assert [a.batch for a in answers[-3:]] == [3, 3, 3]
        assert {a.milliseconds for a in answers[-3:]} == {answers[-1].milliseconds}
    assert model.batches[-1] == [("still", 2), ("slow", 2), ("busy", 2)]
    shares = {a.stream: a.computed * NUM_TOKENS for a in answers[-3:]}
    assert sum(shares.values()) == pytest.approx(3 * 4)  # the batch costs what it always costs
    assert shares["busy"] > 8 and 1 <= shares["still"] < 2
    expect_as_alone(model, answers, frames)


def test_frames_of_one_stream_are_never_in_one_batch_and_stay_in_order(serve):
    model = HeldModel()
    worker = serve(model, max_waiting=4)
    frames = list(video(1, 4))
    worker.open_stream("a", TOKEN)
    first = held_up(worker, model, lambda: worker.submit("a", 0, frames[0], TOKEN))
    later = [worker.submit("a", n, frames[n], TOKEN) for n in (1, 2, 3)]
    model.let.set()
    answers = [f.result(30) for f in (first, *later)]
    assert model.batches == [[("a", n)] for n in range(4)]
    expect_as_alone(model, answers, {"a": frames})


@pytest.mark.parametrize(
    ("stream", "frame_id", "token", "frame", "reason", "sentence"),
    [
        ("a", 7, "stolen", None, "token", "stream 'a' was opened with another token"),
        ("a", 7, None, None, "token", "another token"),
        ("b", 7, TOKEN, None, "unknown", "stream 'b' is not open; open it first"),
        ("../a", 7, TOKEN, None, "name", r"invalid stream name '\.\./a'"),
        ("a", 5, TOKEN, None, "order", "stream 'a': frame 5 came after frame 5"),
        ("a", -1, TOKEN, None, "order", "frame -1 came after frame 5"),
        ("a", "7", TOKEN, None, "order", "frame id '7' must be an integer"),
        ("a", True, TOKEN, None, "order", "frame id True must be an integer"),
        ("a", 7, TOKEN, b"hello", "frame", "5 bytes are not a picture: they begin with b'hello'"),
        ("a", 7, TOKEN, "hello", "frame", "the frame is a str; give the bytes"),
        ("a", 7, TOKEN, torch.zeros(3, 8, 8), "frame", r"\(3, 8, 8\) torch.float32.*\(3, 32, 48\)"),
        ("a", 7, TOKEN, torch.zeros(SHAPE).int(), "frame", r"\(3, 32, 48\) torch.int32"),
        ("a", 7, TOKEN, torch.full(SHAPE, torch.nan), "frame", "contains NaN or infinity"),
        ("a", 7, TOKEN, torch.full(SHAPE, -torch.inf), "frame", "contains NaN or infinity"),
    ],
)
def test_what_does_not_serve_is_refused_and_changes_nothing(
    serve, stream, frame_id, token, frame, reason, sentence
):
    model = HeldModel()
    worker = serve(model)
    worker.open_stream("a", TOKEN)
    frames = list(video(1, 2))
    first = worker.submit("a", 5, frames[0], TOKEN).result(30)
    before = worker.report()
    with pytest.raises(Refused, match=sentence) as refused:
        worker.submit(stream, frame_id, frames[0] if frame is None else frame, token)
    assert refused.value.reason == reason and "\n" not in str(refused.value)
    report = worker.report()
    assert report.refusals[reason] == 1 and sum(report.refusals.values()) == 1
    assert report.counts.refused == 1 and report.counts.frames == before.counts.frames
    answer = worker.submit("a", 6, frames[1], TOKEN).result(30)
    assert not answer.whole  # the stream goes on
    expect_as_alone(model, [first, answer], {"a": {5: frames[0], 6: frames[1]}})


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".a", "a/b", "a b", "a\n", "ä", "a" * 65, "a\0", None, 3, "a:b", "%2e"]
)
def test_names_are_names_and_nothing_else(serve, name):
    worker = serve()
    with pytest.raises(
        Refused, match=r"(?s)invalid stream name .*; give 1 to 64 letters"
    ) as refused:
        worker.open_stream(name, TOKEN)
    assert refused.value.reason == "name" and worker.report().streams == 0


@pytest.mark.parametrize("token", ["", None, "x" * 257, b"secret"])
def test_tokens_are_text(serve, token):
    with pytest.raises(Refused, match=r"invalid token: .*; give 1 to 256 characters"):
        serve().open_stream("a", token)


def test_a_name_may_have_64_characters_and_a_stream_is_opened_again_by_its_own_token(serve):
    worker = serve()
    name = "Cam_3.left-" + "x" * 53
    worker.open_stream(name, TOKEN)
    worker.open_stream(name, TOKEN)
    with pytest.raises(Refused, match="another token"):
        worker.open_stream(name, "guess")
    assert worker.report().streams == 1


def test_the_oldest_waiting_frame_goes_for_a_new_one_and_is_counted(serve):
    model = HeldModel()
    worker = serve(model, max_waiting=2)
    frames = list(video(2, 5))
    worker.open_stream("a", TOKEN)
    first = held_up(worker, model, lambda: worker.submit("a", 0, frames[0], TOKEN))
    later = [worker.submit("a", n, frames[n], TOKEN) for n in (1, 2, 3, 4)]
    for number in (1, 2):
        with pytest.raises(Refused, match=rf"frame {number} was left out: frame {number + 2}") as e:
            later[number - 1].result(0)
        assert e.value.reason == "dropped"
    model.let.set()
    answers = [f.result(30) for f in (first, later[2], later[3])]
    counts = worker.counts("a", TOKEN)
    assert (counts.frames, counts.dropped, counts.whole) == (3, 2, 1)
    expect_as_alone(model, answers, {"a": frames})


def test_what_waits_is_limited_over_all_streams(serve):
    model = HeldModel()
    worker = serve(model, max_batch=1, max_waiting=4)
    frame = next(video(0, 1))
    for name in "abc":
        worker.open_stream(name, TOKEN)
    held_up(worker, model, lambda: worker.submit("a", 0, frame, TOKEN))
    for name in "bc":
        for number in range(4):
            worker.submit(name, number, frame, TOKEN)
    with pytest.raises(Refused, match="8 frames are waiting, which is the limit") as refused:
        worker.submit("a", 1, frame, TOKEN)
    assert refused.value.reason == "full"
    model.let.set()


def test_nobody_is_waited_for_that_has_gone(serve):
    model = HeldModel()
    worker = serve(model)
    frames = list(video(1, 3))
    for name in "ab":
        worker.open_stream(name, TOKEN)
    held_up(worker, model, lambda: worker.submit("a", 0, frames[0], TOKEN))
    gone = worker.submit("b", 0, frames[0], TOKEN)
    assert gone.cancel()
    stays = worker.submit("a", 1, frames[1], TOKEN)
    model.let.set()
    stays.result(30)
    worker.submit("a", 2, frames[2], TOKEN).result(30)
    with pytest.raises(CancelledError):
        gone.result(0)
    assert worker.counts("b", TOKEN).cancelled == 1
    assert ("b", 0) not in model.passed


def test_a_frame_on_which_the_model_fails_is_named_and_the_others_are_answered(serve):
    model = HeldModel()
    worker = serve(model)
    frames = {name: list(video(seed, 3)) for name, seed in (("a", 1), ("b", 2), ("bad", 3))}
    for name in ("x", *frames):
        worker.open_stream(name, TOKEN)
    begun = {n: worker.submit(n, 0, own[0], TOKEN).result(30) for n, own in frames.items()}
    model.poison = frames["bad"][1]
    held_up(worker, model, lambda: worker.submit("x", 0, frames["a"][0], TOKEN))
    coming = {name: worker.submit(name, 1, own[1], TOKEN) for name, own in frames.items()}
    model.let.set()
    with pytest.raises(
        Refused, match=r"stream 'bad': the model failed on frame 1 \(RuntimeError: no such luck\)"
    ) as e:
        coming["bad"].result(30)
    assert e.value.reason == "failed" and isinstance(e.value.__cause__, RuntimeError)
    answers = [begun["a"], begun["b"], *(coming[name].result(30) for name in "ab")]
    answers += [worker.submit(name, 2, frames[name][2], TOKEN).result(30) for name in ("a", "b")]
    expect_as_alone(model, answers, frames)
    again = worker.submit("bad", 2, frames["bad"][2], TOKEN).result(30)
    assert again.whole and worker.counts("bad", TOKEN).failed == 1


def test_the_least_recently_used_stream_is_forgotten_within_the_cap(serve):
    model = HeldModel(max_streams=4)
    worker = serve(model, max_streams=2)
    frames = list(video(1, 4))
    answers = {}
    for number, name in enumerate(["a", "b", "a", "c", "a", "b"]):
        worker.open_stream(name, TOKEN)
        answers[number] = worker.submit(name, number, frames[number % 4], TOKEN).result(30)
        assert len(model.handle.streams) <= 2
    assert [answers[n].whole for n in range(6)] == [True, True, False, True, False, True]
    assert model.handle.streams == ["a", "b"]
    report = worker.report()
    assert (report.evictions, report.streams, report.remembered) == (2, 3, 2)


def test_memory_stays_within_its_bytes(serve):
    model = HeldModel()
    one = serve(HeldModel())
    one.open_stream("a", TOKEN)
    for number, frame in enumerate(video(1, 3)):
        one.submit("a", number, frame, TOKEN).result(30)
    each = one.report().memory_bytes
    assert each == one._model.handle.memory_bytes == one._model.handle.bytes_of("a") > 0
    worker = serve(model, max_bytes=int(2.5 * each))
    for name in ("x", "y", "z"):
        worker.open_stream(name, TOKEN)
    with worker._changed:  # all have arrived when the first is taken, whose size nobody knows
        coming = [worker.submit(n, 0, next(video(1, 1)), TOKEN) for n in ("x", "y", "z")]
    assert [f.result(30).batch for f in coming] == [1, 2, 2]
    for name in ("x", "y", "z"):
        worker.close_stream(name, TOKEN)
    before = worker.report().evictions
    for number in range(3):
        for name in ("a", "b", "c", "d"):
            worker.open_stream(name, TOKEN)
            worker.submit(name, number, next(video(1, 1)), TOKEN).result(30)
            assert model.handle.memory_bytes <= 2.5 * each
    report = worker.report()
    assert report.remembered == 2 and report.evictions - before == 10


def test_a_stream_that_is_larger_than_the_cap_is_never_kept(serve):
    model = HeldModel()
    worker = serve(model, max_bytes=1)
    worker.open_stream("a", TOKEN)
    answers = [worker.submit("a", n, f, TOKEN).result(30) for n, f in enumerate(video(1, 3))]
    assert all(a.whole for a in answers) and model.handle.streams == []


def test_closing_a_stream_forgets_it_and_its_name_is_free(serve):
    model = HeldModel()
    worker = serve(model)
    frames = list(video(1, 3))
    worker.open_stream("a", TOKEN)
    first = held_up(worker, model, lambda: worker.submit("a", 0, frames[0], TOKEN))
    waits = worker.submit("a", 1, frames[1], TOKEN)
    with pytest.raises(Refused, match="another token"):
        worker.close_stream("a", "guess")
    worker.close_stream("a", TOKEN)
    with pytest.raises(Refused, match="frame 1 was left out: the stream was closed") as refused:
        waits.result(0)
    assert refused.value.reason == "closed"
    with pytest.raises(Refused, match="stream 'a' is not open"):
        worker.submit("a", 2, frames[2], TOKEN)
    model.let.set()
    assert first.result(30).whole  # it was in the model
    worker.open_stream("a", "another")
    again = worker.submit("a", 0, frames[0], "another").result(30)
    assert again.whole and again.frame_id == 0
    worker.close_stream("a", "another")
    assert model.handle.streams == []


def test_an_idle_stream_gives_its_place_to_a_new_one(serve):
    now = [0.0]
    worker = serve(None, max_open=2, idle_seconds=60, clock=lambda: now[0])
    worker.open_stream("a", TOKEN)
    now[0] = 30.0
    worker.open_stream("b", TOKEN)
    with pytest.raises(Refused, match="2 streams are open, which is the limit") as refused:
        worker.open_stream("c", TOKEN)
    assert refused.value.reason == "full"
    now[0] = 61.0
    worker.open_stream("c", TOKEN)
    with pytest.raises(Refused, match="stream 'a' is not open"):
        worker.counts("a", TOKEN)
    assert worker.counts("b", TOKEN).frames == 0


def test_a_clock_that_runs_backwards_changes_no_order(serve):
    now, model = [1e6], HeldModel()
    worker = serve(model, max_waiting=3, idle_seconds=60, max_open=2, clock=lambda: now[0])
    for name in "ab":
        worker.open_stream(name, TOKEN)
    frames = list(video(1, 4))
    first = held_up(worker, model, lambda: worker.submit("b", 0, frames[0], TOKEN))
    coming = []
    for number, frame in enumerate(frames[:3]):
        now[0] -= 100.0
        coming.append(worker.submit("a", number, frame, TOKEN))
    with pytest.raises(Refused, match="2 streams are open"):  # none of them is idle for that
        worker.open_stream("c", TOKEN)
    model.let.set()
    assert first.result(30).whole
    assert [answer.result(30).whole for answer in coming] == [True, False, False]
    assert model.batches == [[("b", 0)], [("a", 0)], [("a", 1)], [("a", 2)]]
    with pytest.raises(Refused, match="frame 1 came after frame 2"):
        worker.submit("a", 1, frames[1], TOKEN)


def test_a_worker_that_is_closed_says_so(serve):
    model = HeldModel()
    worker = serve(model)
    frames = list(video(1, 2))
    worker.open_stream("a", TOKEN)
    first = held_up(worker, model, lambda: worker.submit("a", 0, frames[0], TOKEN))
    waits = worker.submit("a", 1, frames[1], TOKEN)
    threading.Timer(0.05, model.let.set).start()
    worker.close()
    worker.close()
    assert first.result(0).whole
    with pytest.raises(Refused, match="left out") as refused:
        waits.result(0)
    assert refused.value.reason == "closed" and not worker.is_alive
    for call in (
        lambda: worker.submit("a", 2, frames[0], TOKEN),
        lambda: worker.open_stream("b", TOKEN),
        lambda: worker.close_stream("a", TOKEN),
    ):
        with pytest.raises(Refused, match="the worker is closed; start another one"):
            call()


def test_many_threads_submit_at_once_and_nothing_is_mixed_or_lost(serve):
    model = HeldModel(k=6, max_streams=8)
    worker = serve(model, max_streams=5, max_waiting=3)
    frames = {f"s{seed}": list(video(1 + seed % 3, 8)) for seed in range(8)}

    def play(name):
        rng = random.Random(name)
        worker.open_stream(name, name)
        coming = []
        for number, frame in enumerate(frames[name]):
            if rng.random() < 0.2:
                with pytest.raises(Refused):
                    worker.submit(name, number, frame, "not " + name)
            if rng.random() < 0.2:
                with pytest.raises(Refused):
                    worker.submit(name, number, torch.full(SHAPE, torch.nan), name)
            coming.append(worker.submit(name, number, frame, name))
            if rng.random() < 0.5:
                coming[-1].exception(30)
        return coming

    with ThreadPoolExecutor(8) as pool:
        coming = [future for made in pool.map(play, frames) for future in made]
    answers = [f.result(30) for f in coming if f.exception(30) is None]
    dropped = [f for f in coming if f.exception() is not None]
    counts = worker.report().counts
    assert len(answers) == counts.frames and len(dropped) == counts.dropped
    assert counts.frames + counts.dropped == 64 and worker.report().waiting == 0
    assert counts.whole == sum(a.whole for a in answers) >= 8
    expect_as_alone(model, answers, frames)


def test_a_callback_may_submit_the_next_frame(serve):
    worker = serve()
    frames, done, answers = list(video(1, 4)), threading.Event(), []
    worker.open_stream("a", TOKEN)

    def more(future):
        answers.append(future.result())
        if len(answers) == 4:
            done.set()
        else:
            number = len(answers)
            worker.submit("a", number, frames[number], TOKEN).add_done_callback(more)

    worker.submit("a", 0, frames[0], TOKEN).add_done_callback(more)
    assert done.wait(30) and [a.frame_id for a in answers] == [0, 1, 2, 3]


def test_one_budget_is_held_over_all_streams(serve):
    model = HeldModel(k=NUM_TOKENS)
    budget = Budget(model.handle, share=0.4, k=(1, NUM_TOKENS))
    worker = serve(model, budget)
    frames = {name: list(video(seed, 12)) for name, seed in (("still", 0), ("busy", 3))}
    for name in ("x", *frames):
        worker.open_stream(name, TOKEN)
    for number in range(12):
        first = held_up(
            worker, model, lambda n=number: worker.submit("x", n, frames["still"][0], TOKEN)
        )
        coming = [worker.submit(n, number, f[number], TOKEN) for n, f in frames.items()]
        model.let.set()
        answers = {n: f.result(30) for n, f in zip(frames, coming)}
        first.result(30)
    assert budget.missed is None and budget.k < NUM_TOKENS
    last = budget.frames[-1]
    assert last.images == 2 and last.k == budget.k
    total = sum(a.computed for a in answers.values()) * NUM_TOKENS
    assert total == pytest.approx(2 * last.k)
    assert answers["busy"].computed > answers["still"].computed
    assert worker.report().missed is None


def test_a_model_without_a_method_is_served_whole(serve):
    plain = small_vitdet()
    worker = serve(TensorModel(plain, SHAPE))
    worker.open_stream("a", TOKEN)
    for number, frame in enumerate(video(1, 2)):
        answer = worker.submit("a", number, frame, TOKEN).result(30)
        with torch.no_grad():
            torch.testing.assert_close(answer.output[0], plain(frame[None])[0])
        assert answer.whole and answer.computed == 1
    assert worker.report().remembered == 0


def test_times_and_counts_are_reported(serve):
    now = [100.0]
    model = HeldModel(policy=TopK(4))
    worker = serve(model, clock=lambda: now[0])
    frames = list(video(1, 3))
    worker.open_stream("a", TOKEN)
    assert worker.report().milliseconds == {}
    for number, frame in enumerate(frames):
        coming = held_up(worker, model, lambda n=number, f=frame: worker.submit("a", n, f, TOKEN))
        now[0] += 0.1 * (number + 1)
        model.let.set()
        answer = coming.result(30)
        assert answer.milliseconds == pytest.approx(100 * (number + 1)) and answer.waited == 0
    report = worker.report()
    assert report.milliseconds[50] == pytest.approx(200)
    assert report.milliseconds[90] == pytest.approx(280)
    assert report.memory_bytes == model.handle.memory_bytes
    assert (report.counts.frames, report.counts.whole, report.waiting) == (3, 1, 0)


@pytest.mark.parametrize(
    "name", ["max_open", "max_streams", "max_batch", "max_waiting", "max_bytes"]
)
@pytest.mark.parametrize("value", [0, -1, 1.5, True])
def test_numbers_are_checked(name, value):
    with pytest.raises(ValueError, match=rf"StreamWorker: {name}={value!r} must be an integer"):
        StreamWorker(HeldModel(), **{name: value})


def test_more_streams_than_the_handle_remembers_are_refused():
    with pytest.raises(ValueError, match="max_streams=9 is above the 8 of the model's handle"):
        StreamWorker(HeldModel(max_streams=8), max_streams=9)


def test_a_model_in_training_is_refused():
    with pytest.raises(ValueError, match=r"the ViTDet is in training mode; call model\.eval"):
        TensorModel(small_vitdet().train(), SHAPE)


def test_the_package_stays_light_and_the_worker_knows_no_engine():
    code = (
        "import sys, mmvitaccel, mmvitaccel.serving\n"
        "assert not {'torch', 'ray', 'socket'} & set(sys.modules), sys.modules.keys()\n"
        "from mmvitaccel.serving import StreamWorker, TensorModel, FrameLimits\n"
        "assert not {'ray', 'mmdet', 'mmengine'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_stream_from_another_worker_goes_on_after_its_last_frame(serve):
    worker = serve()
    frames = list(video(1, 2))
    worker.open_stream("a", TOKEN, after=7)
    with pytest.raises(Refused, match="frame 7 came after frame 7"):
        worker.submit("a", 7, frames[0], TOKEN)
    assert worker.submit("a", 8, frames[0], TOKEN).result(30).whole
    worker.open_stream("a", TOKEN, after=3)  # it is open, and knows better
    with pytest.raises(Refused, match="frame 5 came after frame 8"):
        worker.submit("a", 5, frames[1], TOKEN)


def test_a_model_that_fails_to_prepare_a_frame_is_named(serve):
    def prepare(picture):
        raise ZeroDivisionError("division\nby zero")

    worker = serve(HeldModel(prepare=prepare))
    worker.open_stream("a", TOKEN)
    with pytest.raises(Refused, match=r"cannot prepare the frame \(ZeroDivisionError: ") as refused:
        worker.submit("a", 0, np.zeros((32, 48, 3), np.uint8), TOKEN)
    assert refused.value.reason == "frame" and "\n" not in str(refused.value)
    assert worker.counts("a", TOKEN).refused == 1
    assert worker.submit("a", 0, next(video(1, 1)), TOKEN).result(30).whole


def test_a_token_that_has_no_bytes_is_named(serve):
    worker = serve()
    with pytest.raises(Refused, match="invalid token: half a character") as refused:
        worker.open_stream("a", "s\ud800")
    assert refused.value.reason == "name"
    worker.open_stream("a", TOKEN)
    with pytest.raises(Refused, match="another token"):
        worker.submit("a", 0, next(video(1, 1)), "s\ud800")


def test_memory_that_a_camera_uses_again_changes_no_frame_that_waits(serve):
    model = HeldModel(prepare=lambda picture: torch.from_numpy(picture).permute(2, 0, 1).float())
    worker = serve(model)
    frames = list(video(1, 2))
    for name in ("first", "a", "b"):
        worker.open_stream(name, TOKEN)
    first = held_up(worker, model, lambda: worker.submit("first", 0, frames[0], TOKEN))
    memory = frames[1].clone()
    coming = [worker.submit("a", 0, memory, TOKEN)]
    memory.fill_(torch.nan)
    model.let.set()
    first.result(30)
    with torch.no_grad():
        expected = small_vitdet()(frames[1][None])[0]
    torch.testing.assert_close(coming[0].result(30).output[0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("frame_id", "sentence"),
    [
        pytest.param(
            10**5000, r"the frame id has 16610 bits; give one from -2\*\*63 to", id="huge"
        ),
        (-(2**63) - 1, "the frame id has 64 bits"),
        (1.0, r"frame id 1\.0 must be an integer"),
        pytest.param("9" * 10_000, "frame id '9{39} must be an integer", id="text"),
        (None, "frame id None must be an integer"),
    ],
)
def test_frame_ids_that_are_none_are_named_shortly(serve, frame_id, sentence):
    worker = serve()
    worker.open_stream("a", TOKEN)
    frame = next(video(1, 1))
    with pytest.raises(Refused, match=sentence) as refused:
        worker.submit("a", frame_id, frame, TOKEN)
    assert refused.value.reason == "order" and len(str(refused.value)) < 100
    worker.submit("a", 2**63 - 1, frame, TOKEN).result(30)
    with pytest.raises(Refused, match="frame 1 came after frame 9223372036854775807"):
        worker.submit("a", 1, frame, TOKEN)


@pytest.mark.parametrize(
    "name",
    ["a" * 10_000, "\u043a" * 10_000, b"a", None, 10**5000],
    ids=["long", "letters", "bytes", "None", "huge"],
)
def test_names_that_are_none_are_named_shortly(serve, name):
    with pytest.raises(Refused, match="invalid stream name") as refused:
        serve().open_stream(name, TOKEN)
    assert refused.value.reason == "name" and len(str(refused.value)) < 200
