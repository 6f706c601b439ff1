"""The benchmarks that run the tools' own code: streams and counts of configs."""

from __future__ import annotations

import pytest

from mmvitaccel.datasets.motion_clips import MotionSetSettings, draw_clip, write_clip
from mmvitaccel.errors import UserError
from mmvitaccel.records.record import CHECKOUT

TINY = str(CHECKOUT / "configs/eventful/tiny/vivit-tiny_16x1x1_motion-clips_top16.py")
DENSE = str(CHECKOUT / "configs/vivit/vivit-tiny_16x1x1_motion-clips.py")


def test_stream(load_benchmark, recorded, tmp_path, capsys):
    clip = draw_clip(MotionSetSettings(num_frames=12, img_size=(64, 64)), "up", "val", 0)
    write_clip(tmp_path / "clip.mp4", clip)
    load_benchmark("stream").main(
        [str(tmp_path / "clip.mp4"), TINY, "--max-steps", "4", "--record"]
    )
    first, later = recorded("stream").rows
    assert [first["steps"], later["steps"]] == [1, 3]
    assert first["gmacs"] > later["gmacs"] > 0
    for row in (first, later):
        assert row["dense_over_this"] == pytest.approx(row["dense_ms"] / row["ms"])
    assert "later steps" in capsys.readouterr().out


def test_a_stream_of_one_step_is_refused(load_benchmark, capsys):
    with pytest.raises(SystemExit, match="2"):
        load_benchmark("stream").main(["clip.mp4", TINY, "--max-steps", "1"])
    assert "--max-steps 1: give 2 or more" in capsys.readouterr().err


def test_counts(load_benchmark, recorded, capsys):
    load_benchmark("macs").main([DENSE, TINY, "--record", "macs-tiny"])
    dense, eventful = recorded("macs-tiny").rows
    # 8 steps of 8 x 8 tubelets, 2 x 8 x 8 pixels of 3 channels each, to 64 channels
    assert dense["embedding_gmacs"] * 1e9 == pytest.approx(8 * 64 * 64 * 3 * 2 * 64)
    assert dense["paper_tmacs"] == pytest.approx((dense["gmacs"] - dense["embedding_gmacs"]) / 1e3)
    assert dense["dense_over_this"] is None
    assert eventful["dense_over_this"] == pytest.approx(dense["gmacs"] / eventful["gmacs"])
    assert eventful["params"] == dense["params"] and eventful["views"] == 1
    assert f"{dense['params']:,}" in capsys.readouterr().out


def test_patterns_of_configs(load_benchmark, tmp_path):
    module = load_benchmark("macs")
    for name in ("b.py", "a.py", "c.txt"):
        (tmp_path / name).touch()
    a, b = (str(tmp_path / name) for name in ("a.py", "b.py"))
    assert module.find_configs([b, str(tmp_path / "*.py"), "no.py"]) == [b, a, "no.py"]
    with pytest.raises(UserError, match=r"no config matches '.*\*\.yaml'; correct the pattern"):
        module.find_configs([str(tmp_path / "*.yaml")])
