"""Numbers of frames and clips below 1, with which mmaction2 takes one frame again and again."""

from __future__ import annotations

import pytest

from mmvitaccel.errors import UserError
from mmvitaccel.fit.settings.clips import check_clips

FRAMES = dict(type="SampleFrames", clip_len=8, frame_interval=2, num_clips=1)


@pytest.mark.parametrize("kind", ["SampleFrames", "mmaction.DenseSampleFrames", "UniformSample"])
@pytest.mark.parametrize(
    "wrong",
    [dict(clip_len=0), dict(frame_interval=0), dict(frame_interval=1.5), dict(num_clips="x")],
)
def test_frames_without_a_number(kind, wrong):
    ((key, value),) = wrong.items()
    step = dict(FRAMES, type=kind) | wrong
    sentence = rf"^d\.pipeline\.1\.{key} is {value!r}; give (a whole number, )?1 or more"
    with pytest.raises(UserError, match=sentence):
        check_clips("d", dict(pipeline=[dict(type="DecordInit"), step]))


def test_frames_as_they_are():
    other = dict(type="MMUniformSampleFrames", clip_len=dict(RGB=8, Pose=32))
    check_clips("d", dict(pipeline=[FRAMES, other, dict(type="SampleAVAFrames", clip_len=32)]))
    check_clips("d", dict(pipeline=None))
