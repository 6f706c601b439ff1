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
        dense = min(row["dense_ms_total"], row["openvino_ms"] or float("inf"))
        assert row["speedup"] == pytest.approx(dense / row["steady_ms_total"])
        assert row["openvino_error"] is None or row["openvino_error"] < 1e-4
        assert (row["changes"], row["dtype"]) == ("video", "float32")
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


def test_bfloat16(benchmark, video, tmp_path):
    out = tmp_path / "out.json"
    config = str(Path(__file__).parents[2] / CONFIG)
    size = ["--size", "128", "72", "--frames", "1", "--boxes", "still"]
    benchmark.main([video, config, "--k", "16", *size, "--bfloat16", "--json", str(out)])
    (row,) = json.loads(out.read_text())
    assert row["dtype"] == "bfloat16" and row["head_error"] < 0.1


@pytest.mark.parametrize(
    ("change", "low", "high"),
    [("rectangle", 0.07, 0.13), ("scattered", 0.07, 0.13), ("rectangles", 0.08, 0.2),
     ("everything", 1, 1), ("nothing", 0, 0)],
)  # fmt: skip
def test_maps_change_as_told(benchmark, change, low, high):
    maps = [torch.zeros(1, 4, 100, 168), torch.zeros(1, 4, 50, 84), torch.zeros(1, 4, 25, 42)]
    first, second, third = benchmark.changing_maps(maps, change, 3)
    assert all(torch.equal(a, b) for a, b in zip(maps, first))
    for before, now in ((first, second), (second, third)):
        share = (before[1] != now[1]).any(1).float().mean().item()
        assert low <= share <= high
        # each level changes in the same part of the picture; small cells are hit more often
        assert low <= (before[0] != now[0]).any(1).float().mean().item() <= high
    scores = benchmark.fixed_scores([torch.zeros(1, 90, 50, 84)])
    assert torch.equal(scores[0], benchmark.fixed_scores(scores)[0])
    assert 0.0005 < (scores[0].sigmoid() > 0.05).float().mean() < 0.002
