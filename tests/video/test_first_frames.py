from __future__ import annotations

import pytest
import torch

from mmvitaccel.datasets.motion_clips import MotionSetSettings, draw_clip, write_clip
from mmvitaccel.errors import UserError
from mmvitaccel.video.first_frames import first_frames


def test_first_frames_fit_a_padded_square(tmp_path):
    path = tmp_path / "clip.mp4"
    write_clip(path, draw_clip(MotionSetSettings(num_frames=6, img_size=(36, 64)), "up", "val", 0))
    first, second = first_frames(str(path), 64, 2)
    assert first.shape == second.shape == (1, 3, 64, 64) and not torch.equal(first, second)
    # 640 of 1024 pixels for the short side would be 40 of 64; the long side allows 36
    assert first[..., :36, :].abs().sum() > 0 and not first[..., 36:, :].any()
    with pytest.raises(UserError, match=r"has 6 frames and 9 are needed; set --frames lower"):
        first_frames(str(path), 64, 9)
