"""The benchmark of camera moves, on drawn videos."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mmvitaccel.errors import UserError

SIZE = 112


@pytest.fixture
def camera_moves(load_benchmark):
    return load_benchmark("camera_moves")


@pytest.fixture
def panned(tmp_path):
    """A folder with a video of a drawn still, panned by 4 pixels of SIZE a frame."""
    random, side = np.random.default_rng(0), 2 * SIZE
    picture = np.zeros((side, side + 60, 3), np.float32)
    for cells in (24, 48, 96):
        coarse = random.uniform(0, 85, (cells, cells, 3)).astype(np.float32)
        picture += cv2.resize(coarse, picture.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    frames = tmp_path / "videos" / "panned" / "frames"
    frames.mkdir(parents=True)
    for t in range(4):
        frame = picture[:, 8 * t : 8 * t + side].clip(0, 255).astype(np.uint8)
        cv2.imwrite(str(frames / f"{t}.png"), frame)
    return frames.parents[1]


def test_rows(camera_moves, panned, recorded, capsys):
    camera_moves.main([str(panned), "--size", str(SIZE), "--record"])
    rows = {row["what"]: row for row in recorded("camera-moves").rows}
    video = rows["panned"]
    assert (video["frames"], video["misfits"], video["unlike"]) == (3, 0, 0)
    assert (video["near"], video["plain"]) == (1, 0)
    assert video["moved"] == pytest.approx(4, abs=0.2)
    for name in ("pan by 3", "shake", "noise of 10 of 255", "brightness times 0.8"):
        assert (rows[name]["frames"], rows[name]["misfits"], rows[name]["near"]) == (5, 0, 1)
    for name in ("zoom by 1.02", "turn by 3"):
        assert rows[name]["misfits"] == 5 and rows[name]["near"] is None
    printed = capsys.readouterr().out
    assert all(f"\n{name}" in printed for name in rows)


def test_largest_part(camera_moves):
    flow = np.repeat(np.array([[0.0, 4.0], [3.0, 0.0], [0.0, 0.1]]), (5, 3, 2), 0)
    shift, share = camera_moves.largest_part(flow, SIZE)
    assert shift == pytest.approx((0, 4)) and share == 0.5


def test_refusals(camera_moves, tmp_path):
    with pytest.raises(UserError, match="with --frames 40 hold no videos of at least two frames"):
        camera_moves.main.__wrapped__([str(tmp_path)])
