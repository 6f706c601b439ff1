"""The benchmark of budgets, on small frames."""

from __future__ import annotations

import pytest

from mmvitaccel.datasets.motion_clips import MotionSetSettings, draw_clip, write_clip


def test_phases(load_benchmark, recorded, tmp_path, capsys):
    clip = draw_clip(MotionSetSettings(num_frames=24, img_size=(64, 64)), "up", "val", 0)
    write_clip(tmp_path / "clip.mp4", clip)
    arguments = [str(tmp_path / "clip.mp4"), "--size", "64", "--frames", "6", "--record"]
    load_benchmark("budget").main(arguments)
    rows = recorded("budget").rows
    assert [row["phase"] for row in rows] == ["start", "step down", "step up", "load"]
    assert [row["busy"] for row in rows] == [0, 0, 0, 1]
    for row, share in zip(rows, (0.7, 0.4, 0.7, 0.7)):
        assert row["target_ms"] == pytest.approx(share * row["dense_ms"])
        assert row["p90_ms"] >= row["median_ms"] > 0
    assert capsys.readouterr().out.count("frames to follow") == 4


def test_figures(load_benchmark):
    module = load_benchmark("budget")
    times = [200.0, 200.0, 130.0, 105.0, 100.0, 98.0, 300.0, 99.0, 101.0]
    # medians of three: 200, 200, 130, 105, 100, 100, 99, 101, 100
    assert module.smooth(times)[:5] == [200.0, 200.0, 130.0, 105.0, 100.0]
    assert module.frames_to_follow(times, 100) == 3
    assert module.frames_to_follow([200.0] * 4, 100) is None
    assert module.frames_to_follow([100.0] * 4, 100) == 0
    assert module.overshoot([100.0, 190.0, 190.0, 190.0, 150.0], 100, 150) == pytest.approx(0.8)
    assert module.overshoot([200.0, 120.0, 120.0], 200, 100) == 0


def test_too_few_frames(load_benchmark, capsys):
    with pytest.raises(SystemExit, match="2"):
        load_benchmark("budget").main(["clip.mp4", "--frames", "1"])
    assert "--frames 1: give 4 or more" in capsys.readouterr().err
