"""Clips whose motion only the change from frame to frame tells."""

from __future__ import annotations

import numpy as np
import pytest

from mmvitaccel.datasets.motion_clips import (
    MOTIONS,
    MotionSetSettings,
    draw_clip,
    make_motion_set,
)

decord = pytest.importorskip("decord", reason="decord comes with mmaction2")

SMALL = MotionSetSettings(num_train=8, num_val=7, num_frames=9, img_size=(48, 64), noise=0.0)


def test_same_seed_same_pictures_and_every_clip_another():
    first = draw_clip(SMALL, "left", "train", 1)
    assert first.shape == (9, 48, 64, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, draw_clip(SMALL, "left", "train", 1))
    others = [
        draw_clip(SMALL, "left", "train", 2),
        draw_clip(SMALL, "left", "val", 1),
        draw_clip(MotionSetSettings(**{**vars(SMALL), "seed": 1}), "left", "train", 1),
    ]
    assert all((first != other).mean() > 0.3 for other in others)


def test_one_frame_does_not_tell_the_motion():
    """The middle frame is the same for all motions; the others differ, each from each."""
    clips = {motion: draw_clip(SMALL, motion, "val", 3) for motion in MOTIONS}
    for motion, clip in clips.items():
        assert np.array_equal(clip[4], clips["left"][4])
        for other, another in clips.items():
            if other != motion:
                assert (clip[0] != another[0]).any(), (motion, other)


@pytest.mark.parametrize(("one", "other"), [("left", "right"), ("up", "down"), ("grow", "shrink")])
def test_opposite_motions_are_each_other_backwards(one, other):
    for index in range(3):
        forwards = draw_clip(SMALL, one, "train", index).astype(int)
        backwards = draw_clip(SMALL, other, "train", index)[::-1]
        # A rounding at the wrap-around may fall to either side.
        assert np.abs(forwards - backwards).max() <= 1


def test_motions_are_what_their_names_say():
    """A drift moves the pictures' difference to the background; the torus makes that exact."""
    settings = MotionSetSettings(**{**vars(SMALL), "objects": (1, 1), "speed": (2.0, 2.0)})
    for motion, axis, shift in (("left", 1, -2), ("right", 1, 2), ("up", 0, -2), ("down", 0, 2)):
        clip = draw_clip(settings, motion, "train", 5).astype(float)
        background = np.median(clip, 0)
        moved = np.abs(clip - background).sum(-1)
        before, after = moved[3], moved[4]
        best = min(range(-4, 5), key=lambda s: np.abs(np.roll(before, s, axis) - after).sum())
        assert best == shift, motion
    background = np.median([draw_clip(settings, "left", "train", 5)], (0, 1))
    covered = [
        (np.abs(frame - background).sum(-1) > 30).sum()
        for frame in draw_clip(settings, "grow", "train", 5)
    ]
    assert covered[-1] > covered[0]


def test_set_on_disk_as_mmaction_reads_it(tmp_path):
    told = []
    root = make_motion_set(tmp_path / "set", SMALL, progress=lambda *a: told.append(a))
    assert told[-1] == ("val clips", 7, 7)
    lines = (root / "train.txt").read_text().splitlines()
    assert lines[0] == "train/00000.mp4 0"
    assert [int(line.split()[1]) for line in lines] == [0, 1, 2, 3, 4, 5, 6, 0]
    assert (root / "classes.txt").read_text().split() == list(MOTIONS)
    for index in (0, 6):
        reader = decord.VideoReader(str(root / f"val/{index:05d}.mp4"))
        frames = reader.get_batch(range(len(reader))).asnumpy().astype(float)
        drawn = draw_clip(SMALL, MOTIONS[index % 7], "val", index)
        assert frames.shape == drawn.shape
        assert np.sqrt(((frames - drawn) ** 2).mean()) < 8
    stamp = (root / "val/00000.mp4").stat().st_mtime_ns
    assert make_motion_set(root, SMALL) == root
    assert (root / "val/00000.mp4").stat().st_mtime_ns == stamp
    with pytest.raises(ValueError, match="holds a set made with other settings"):
        make_motion_set(root, MotionSetSettings(num_train=1, num_val=1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(num_train=0), "num_train=0"),
        (dict(objects=(3, 2)), r"objects=\(3, 2\)"),
        (dict(img_size=(64, 63)), r"img_size=\(64, 63\) must be even"),
    ],
)
def test_settings_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        MotionSetSettings(**options)
