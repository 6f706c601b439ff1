"""The benchmark of heads with held statistics, on a small video."""

from __future__ import annotations

import pytest


@pytest.fixture
def benchmark(load_benchmark):
    return load_benchmark("held_norms")


@pytest.fixture
def video(moving_clip):
    return moving_clip(5, (64, 96))


def test_whole_frames_are_exact_and_refreshes_help(benchmark, video, monkeypatch):
    rows = []
    monkeypatch.setattr(benchmark, "show", rows.append)
    benchmark.main([video, "--heads", "atss", "--size", "96", "--frames", "5", "--every", "0", "2"])
    never, often = rows
    assert (never.frames, often.frames) == (4, 2)
    for row in rows:
        assert row.whole_error < 1e-5 < row.error <= row.largest
        assert row.steady_gmacs < row.dense_gmacs
    assert often.error < never.error < never.kept_error


def test_too_few_frames_are_a_sentence(benchmark, video, capsys):
    with pytest.raises(SystemExit) as stopped:
        benchmark.main([video, "--frames", "9", "--heads", "fcos", "--size", "64"])
    assert "has 5 frames and 9 are needed" in str(stopped.value) + capsys.readouterr().err
