"""Streams interleaved at random, a part of them kept: the small form of the endurance run."""

from __future__ import annotations

import pytest

from mmvitaccel.core.eventful.store import StreamStore


@pytest.mark.parametrize("attention", ["exact", "tokenwise", "delta"])
def test_kept_streams_are_as_alone_and_dropped_ones_start_clean(load_script, attention):
    script = load_script("many_streams")
    result = script.run(num_streams=9, kept=4, num_frames=90, attention=attention)
    assert result.frames == 90 and result.most_kept == 4 and result.warnings == 1
    assert 9 < result.clean_starts < 90
    assert 0 < result.most_bytes <= 4 * result.bytes_of_one


def test_a_stream_on_the_memory_of_another_is_a_mistake(load_script, monkeypatch):
    script = load_script("many_streams")
    begin = StreamStore.begin

    def mix(store, frames, *rest):
        states = begin(store, frames, *rest)
        store._states[frames[0].stream] = next(iter(store._states.values()))
        return states

    monkeypatch.setattr(StreamStore, "begin", mix)
    with pytest.raises(script.Mistake, match=r"frame \d+, stream \d"):
        script.run(num_streams=5, kept=3, num_frames=60)


def test_a_mistake_ends_the_command(load_script, monkeypatch, capsys):
    script = load_script("many_streams")
    script.main(["--streams", "3", "--kept", "2", "--frames", "12", "--attention", "exact"])
    assert "exact: frames 12, clean_starts" in capsys.readouterr().out
    monkeypatch.setattr(StreamStore, "_drop_oldest", lambda *given: None)
    with pytest.raises(SystemExit, match="exact: more than 2 streams' memory is kept"):
        script.main(["--streams", "3", "--kept", "2", "--frames", "12", "--attention", "exact"])
