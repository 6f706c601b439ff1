"""The benchmark of moving cameras: its rows, with a small model on a drawn still."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from mmvitaccel.errors import UserError


@pytest.fixture
def moving_camera(load_benchmark, monkeypatch, small_vitdet):
    module = load_benchmark("moving_camera")
    small = dict(patch_size=16, window_size=3, pretrain_img_size=64)
    monkeypatch.setattr(module, "vitdet", lambda **kwargs: small_vitdet(**{**small, **kwargs}))
    return module


@pytest.fixture
def still(tmp_path):
    rng, picture = np.random.default_rng(0), np.zeros((300, 300, 3), np.float32)
    for side in (10, 40, 150):
        coarse = rng.uniform(0, 85, (side, side, 3)).astype(np.float32)
        picture += cv2.resize(coarse, (300, 300), interpolation=cv2.INTER_CUBIC)
    path = tmp_path / "still.png"
    cv2.imwrite(str(path), picture.clip(0, 255).astype(np.uint8))
    return path


def rows_of(module, still, recorded, *options):
    module.main([str(still), "--size", "128", "--record", *options])
    return recorded("moving-camera").rows


def test_rows(moving_camera, still, recorded, capsys):
    rows = rows_of(
        moving_camera, still, recorded, "--moves", "fixed", "pan 3 both", "--k", "12", "40",
        "--frames", "8", "--at", "2", "7",
    )  # fmt: skip
    assert len(rows) == 2 * 2 * 2 * 3
    found = {(r["move"], r["model"], r["k"], r["frame"]): r for r in rows}
    moved = found["pan 3 both", "motion", 12, 7]
    plain = found["pan 3 both", "plain", 12, 7]
    assert moved["error"] < plain["error"] and moved["error"] < moved["alignment"]
    assert plain["alignment"] is None and plain["ratio"] == 1
    assert moved["misfits"] == 0 and moved["mean_ms"] > 0
    for k in (12, 40):
        still_rows = [found["fixed", model, k, 7] for model in ("plain", "motion")]
        assert still_rows[0]["error"] == still_rows[1]["error"] < 1e-5
        assert still_rows[1]["alignment"] == 0
    assert capsys.readouterr().out.count("pan 3 both") == 12


def test_moves(moving_camera, still):
    image, moves = cv2.imread(str(still)), moving_camera.moves()
    assert len(moves) == 18
    for name, move in moves.items():
        assert move(0) == (0, 0, 1) and (name == "fixed" or move(5) != (0, 0, 1))
    first, *_, last = moving_camera.frames_of(image, moves["pan 3 y"], 64, 5)
    assert torch.equal(last[:, :, :-12], first[:, :, 12:])  # as they are, in whole pixels
    assert not torch.equal(last, first)


def test_refusals(moving_camera, still, tmp_path):
    with pytest.raises(UserError, match=r"--moves 'pan 5 x': known are 'fixed', 'pan 0\.5 x'"):
        moving_camera.main.__wrapped__([str(still), "--moves", "pan 5 x"])
    with pytest.raises(UserError, match="--frames 8 --at 8: frames are compared from number 2 on"):
        moving_camera.main.__wrapped__([str(still), "--at", "8"])
    with pytest.raises(UserError, match="cannot be read as a picture"):
        moving_camera.main.__wrapped__([str(tmp_path / "none.png")])
