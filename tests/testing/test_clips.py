"""Clips of a video, sampled as in the Kinetics configs."""

from __future__ import annotations

import pytest

from mmvitaccel.datasets.motion_clips import MotionSetSettings, draw_clip, write_clip
from mmvitaccel.errors import UserError
from mmvitaccel.testing.clips import read_clips

pytest.importorskip("mmaction", reason="its config is of mmaction2, which is not installed")


def test_clip_is_that_of_the_configs(tmp_path):
    clip = draw_clip(MotionSetSettings(num_frames=64, img_size=(32, 48)), "up", "val", 0)
    write_clip(tmp_path / "long.mp4", clip)
    write_clip(tmp_path / "short.mp4", clip[:40])
    x = read_clips(str(tmp_path / "long.mp4"), 1)
    assert x.shape == (1, 3, 32, 224, 224)
    assert -2 <= x.min() < x.max() <= 2.5
    with pytest.raises(UserError, match=r"short\.mp4 has 40 frames, enough for 0 of 1 clips"):
        read_clips(str(tmp_path / "short.mp4"), 1)


def test_each_clip_begins_a_step_later(tmp_path):
    clip = draw_clip(MotionSetSettings(num_frames=72, img_size=(32, 48)), "up", "val", 0)
    write_clip(tmp_path / "long.mp4", clip)
    first, second = read_clips(str(tmp_path / "long.mp4"), 2)
    assert first[:, 2:].equal(second[:, :-2])
    assert not first[:, :2].equal(first[:, 2:4])
