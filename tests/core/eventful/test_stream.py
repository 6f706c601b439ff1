from __future__ import annotations

import torch

from mmvitaccel.core.eventful.frame import Frame
from mmvitaccel.core.eventful.stream import StreamState


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
