"""The benchmark of whole detectors, on small ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

CONFIG = "configs/eventful/tiny/faster-rcnn_vitdet-tiny_vid-128_dense.py"


@pytest.fixture
def benchmark(load_benchmark):
    return load_benchmark("detector")


@pytest.fixture(scope="module")
def video(moving_clip):
    return moving_clip(6, (72, 128))


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
