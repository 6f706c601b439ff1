from __future__ import annotations

import copy
import warnings

import pytest
import torch

from mmvitaccel.core.eventful.frame import Frame, current_frames, frames_of, streams
from mmvitaccel.core.eventful.stream import StreamState, StreamStore, Turn, memory_bytes


def is_clean(state, frame, signature="same"):
    """Whether a state that remembers something forgets it at a frame."""
    state.blocks[0] = "memory"
    state.begin(frame, signature)
    return not state.blocks


def started(frame_id=5):
    state = StreamState()
    state.begin(Frame("a", frame_id), "same")
    return state


def test_a_stream_goes_on_with_higher_frame_ids_and_with_none():
    assert not is_clean(started(), Frame("a", 6))
    assert not is_clean(started(), Frame("a", 60))
    assert not is_clean(started(None), Frame("a", 3))
    assert not is_clean(started(), Frame("a"))


def test_what_makes_a_stream_start_clean():
    assert is_clean(started(), Frame("a", 5)), "repeated frame id"
    assert is_clean(started(), Frame("a", 4)), "lower frame id"
    assert is_clean(started(), Frame("a", 6, cut=True)), "scene cut"
    assert is_clean(started(), Frame("a", 6), "other"), "size, dtype, device or weights"
    broken = started()
    broken.busy = True
    assert is_clean(broken, Frame("a", 6)), "broken off in a block"
    assert not broken.busy
    sick = started()
    sick.saw(torch.tensor([1.0, float("nan")]))
    sick.saw(torch.ones(3))
    assert is_clean(sick, Frame("a", 6)), "not a number"
    well = started()
    well.saw(torch.full((64,), 60000.0, dtype=torch.float16))
    assert not is_clean(well, Frame("a", 6)), "large but finite"


def test_frames_are_counted_from_the_clean_start():
    state = StreamState()
    counts = []
    for frame_id in (0, 1, 2, 2, 3):
        state.begin(Frame("a", frame_id), None)
        counts.append(state.num_frames)
    assert counts == [1, 2, 3, 1, 2]


def test_the_stream_longest_unused_goes_first_and_its_return_is_said():
    store = StreamStore(max_streams=2)
    for name in ("a", "b", "a", "c"):
        store.begin([Frame(name)], None)
    assert store.names == ["a", "c"] and len(store) == 2 and "b" not in store
    with pytest.warns(UserWarning, match=r"stream 'b' was evicted.*max_streams=2"):
        store.begin([Frame("b")], None)
    store.drop("b")
    store.drop("unknown")
    assert store.names == ["c"]
    store.drop()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.begin([Frame("a")], None)


def test_that_streams_are_dropped_is_said_once():
    store = StreamStore(max_streams=1)
    with pytest.warns(UserWarning, match="stream 'a' was evicted.*like all") as said:
        for name in "abcabcabc":
            store.begin([Frame(name)], None)
    assert len(said) == 1


def test_a_first_frame_that_is_given_twice_counts_once():
    store = StreamStore()
    for frame_id in (0, 0, 1, 2):
        frames = [Frame("a", frame_id, num_frames=4)]
        store.begin(frames, None)
        store.forget_finished(frames)
    assert "a" in store and store.state("a").num_frames == 3
    frames = [Frame("a", 3, num_frames=4)]
    store.begin(frames, None)
    store.forget_finished(frames)
    assert "a" not in store


def test_a_stream_whose_frames_have_all_been_seen_is_forgotten():
    store = StreamStore(max_streams=3)
    numbers = [1, 2, 7]  # from 1, and with a gap
    kept = []
    for number in numbers:
        frames = [Frame("a", number, num_frames=3), Frame("b", number), Frame(None)]
        store.begin(frames, None)
        store.forget_finished(frames)
        kept.append(store.names)
    assert kept == [["a", "b"], ["a", "b"], ["b"]]
    cut = [Frame("c", 0, num_frames=2), Frame("c", 1, cut=True, num_frames=2)]
    for frame in cut:
        store.begin([frame], None)
        assert "c" in store
        store.forget_finished([frame])
    assert store.names == ["b"], "a clean start on the way counts as well"


def test_a_batch_keeps_its_own_streams():
    store = StreamStore(max_streams=2)
    store.begin([Frame("a"), Frame("b")], None)
    a, c = store.begin([Frame("a"), Frame("c")], None)
    assert store.names == ["a", "c"] and a.num_frames == 2 and c.num_frames == 1
    assert store.begin([Frame(None), Frame("c")], None) == [None, c]
    with pytest.raises(ValueError, match="a batch of 3 streams but max_streams=2"):
        store.begin([Frame("a"), Frame("b"), Frame("c")], None)
    with pytest.raises(ValueError, match="max_streams=0"):
        StreamStore(0)


def test_memory_is_counted_once_for_each_storage_and_not_copied_with_the_model():
    class Plain:
        def __init__(self):
            self.x = torch.zeros(10)
            self.view = self.x[2:4]
            self.more = {"y": [torch.zeros(3, dtype=torch.float64)], "z": (self.x, None, "text")}

    assert memory_bytes(Plain()) == 40 + 24
    store = StreamStore(3)
    (state,) = store.begin([Frame("a")], None)
    state.blocks[0] = Plain()
    assert store.memory_bytes() == state.memory_bytes() == 64
    copied = copy.deepcopy(store)
    assert len(copied) == 0 and copied.max_streams == 3 and len(store) == 1


def test_streams_are_named_around_a_call_and_nest():
    assert current_frames() is None
    with streams(frames_of("a", 3)):
        assert current_frames() == (Frame("a", 3, lockstep=True),)
        with pytest.raises(RuntimeError), streams(frames_of(["b", None], [1, 2], [False, True])):
            assert current_frames() == (Frame("b", 1), Frame(None, 2, True))
            raise RuntimeError
        assert current_frames()[0].stream == "a"
    assert current_frames() is None
    assert frames_of(["a", "b"], 7) == (Frame("a", 7), Frame("b", 7))


def test_wrong_names_are_refused():
    with pytest.raises(ValueError, match="2 streams, 1 frame ids and 2 cuts"):
        frames_of(["a", "b"], [1])
    with pytest.raises(ValueError, match="has a stream twice"):
        frames_of(["a", "a"])
    with pytest.raises(ValueError, match=r"frame_id=\[1, 2\] is a list but stream='a'"):
        frames_of("a", [1, 2])
    with pytest.raises(TypeError, match=r"\{\} is not hashable"):
        frames_of([{}])


def test_streams_that_are_computed_stay_and_are_refused_to_others():
    store, mine, others = StreamStore(2), Turn(), Turn()
    (a,) = store.begin([Frame("a")], None, mine)
    store.begin([Frame("b"), Frame("c")], None, others)
    assert store.names == ["a", "b", "c"]
    with pytest.raises(RuntimeError, match="frame of stream 'b' was given in thread 'MainThread'"):
        store.begin([Frame("d"), Frame("b")], None, Turn())
    store.end([a], mine)
    assert store.names == ["b", "c"]
    with pytest.warns(UserWarning, match="'a' was evicted"):
        store.begin([Frame("a")], None, mine)


def test_a_batch_keeps_its_own_streams_when_all_others_are_computed():
    store = StreamStore(2)
    store.begin([Frame("a")], None)
    store.begin([Frame("x")], None, Turn())
    a, b = store.begin([Frame("a"), Frame("b")], None, Turn())
    assert (a.num_frames, b.num_frames) == (2, 1)


def test_a_stream_whose_frame_cannot_start_is_free():
    store, turn = StreamStore(), Turn()
    store.begin([Frame("a", 1)], None)
    with pytest.raises(TypeError, match="'>' not supported"):
        store.begin([Frame("a", "two")], None, turn)
    assert not store.state("a").is_taken
