"""What OnChange's default stands on: cuts and what is no cut, drawn and real."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mmvitaccel.errors import UserError


@pytest.fixture
def scene_cuts(load_benchmark):
    return load_benchmark("scene_cuts")


@pytest.fixture
def real_folders():
    """Folders of real clips; the test is skipped where they are not."""
    root = Path(os.environ.get("MMVITACCEL_TEST_DATA", Path(__file__).parents[2] / "data"))
    folders = [root / "videos", root / "davis"]
    for folder in folders:
        if not folder.is_dir():
            pytest.skip(f"{folder} is not there; set MMVITACCEL_TEST_DATA to the folder above it")
    return folders


def measured(module, videos):
    (name, look), *_ = module.looks(None).items()
    with torch.inference_mode():
        return {row.what: row for row in module.measure(name, look, videos)}


def test_kinds_of_changes(scene_cuts, tmp_path):
    generator = np.random.default_rng(0)
    for name in ("a", "b"):
        coarse = generator.integers(0, 255, (6, 8, 3)).astype(np.uint8)
        picture = cv2.resize(coarse, (160, 120), interpolation=cv2.INTER_CUBIC)
        for number in range(3):
            frames = tmp_path / name / "frames"
            frames.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(frames / f"{number}.png"), np.roll(picture, number, 1))
    videos = scene_cuts.read_videos([tmp_path], 3)
    rows = measured(scene_cuts, videos)
    assert list(rows)[:3] == ["cuts", "a", "b"] and "pan by 8" in rows
    cuts = rows["cuts"]
    assert (cuts.count, cuts.above) == (6, 6)
    assert (rows["a"].count, rows["a"].above) == (2, 0)
    assert 0 < rows["a"].largest < cuts.smallest
    assert rows["pan by 1"].largest < rows["pan by 8"].largest
    with pytest.raises(UserError, match="hold 0 videos; at least two videos of at least two"):
        scene_cuts.read_videos([tmp_path / "a"], 3)


def test_real_clips(scene_cuts, real_folders):
    """No motion, pan, noise or flicker of real clips is taken for a cut, and cuts are found.

    Random weights do not tell some scenes apart that lie alike in the picture, two of grey floors
    above all. Trained ones tell all: ``scene_cuts.py --weights``.
    """
    videos = scene_cuts.read_videos(real_folders, 40)
    rows = measured(scene_cuts, videos)
    unmoved = {what: row.above for what, row in rows.items() if what != "cuts" and row.above}
    assert unmoved == {}
    without = {name: frames for name, frames in videos.items() if not name.startswith("room")}
    cuts = measured(scene_cuts, without)["cuts"]
    assert cuts.count >= 50 and cuts.above / cuts.count > 0.99
