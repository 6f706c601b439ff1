"""The benchmark of whole detectors, on small ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mmvitaccel.datasets.motion_clips import MotionSetSettings, draw_clip, write_clip

CONFIG = "configs/eventful/tiny/faster-rcnn_vitdet-tiny_vid-128_dense.py"


@pytest.fixture
def benchmark(load_benchmark):
    return load_benchmark("detector")


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_clip(path, draw_clip(MotionSetSettings(num_frames=6, img_size=(72, 128)), "up", "val", 0))
    return str(path)


def test_tables_and_json(benchmark, video, tmp_path, capsys):
    out = tmp_path / "out.json"
    config = str(Path(__file__).parents[2] / CONFIG)
    args = [video, config, "--k", "16", "--size", "128", "72", "--frames", "2", "--json", str(out)]
    benchmark.main(args)
    still, moved = json.loads(out.read_text())
    assert "proposals still" in capsys.readouterr().out
    for row in (still, moved):
        assert row["head_error"] < 1e-5 and 0 <= row["matched"] <= 1
        assert row["speedup"] == pytest.approx(row["dense_ms_total"] / row["steady_ms_total"])
        for part in ("backbone", "neck", "rpn_head", "roi_head"):
            assert row[f"steady_gmacs_{part}"] < row[f"dense_gmacs_{part}"]
            assert row[f"state_mb_{part}"] > 0 and row[f"computed_{part}"] < 1
    assert (still["boxes"], moved["boxes"]) == ("still", "moved")


def test_boxes_over_changed_pixels_move(benchmark):
    picture = torch.zeros(3, 72, 128, dtype=torch.uint8)
    boxes = benchmark.grid_of_boxes(picture, 50)
    assert 25 <= len(boxes) <= 60 and len((boxes[:, 2] - boxes[:, 0]).unique()) == 5
    now = picture.clone()
    now[:, :9, :9] = 255
    shift = benchmark.moved(boxes, picture, now) - boxes
    assert 0 < (shift == 2).all(1).sum() < len(boxes)
    assert ((shift == 2).all(1) | (shift == 0).all(1)).all()
    assert torch.equal(benchmark.moved(boxes, now, now), boxes)


def test_what_is_missing_is_said(benchmark, video, capsys):
    with pytest.raises(SystemExit) as stopped:
        benchmark.main([video, CONFIG])
    assert "give --k or --threshold" in str(stopped.value) + capsys.readouterr().err
