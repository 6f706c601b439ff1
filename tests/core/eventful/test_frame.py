from __future__ import annotations

import pytest

from mmvitaccel.core.eventful.frame import Frame, current_frames, frames_of, streams


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
