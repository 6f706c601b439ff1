from __future__ import annotations

import copy
import warnings

import pytest
import torch

from mmvitaccel.core.eventful.frame import Frame
from mmvitaccel.core.eventful.store import StreamStore
from mmvitaccel.core.eventful.stream import Turn, memory_bytes


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
