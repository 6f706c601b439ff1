"""The benchmark of transformers' models at its quick size."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch


@pytest.fixture
def benchmark(load_benchmark):
    return load_benchmark("hosts")


@pytest.fixture
def video(tmp_path):
    """Eight frames of noise of which a quarter changes, more than passes."""
    rng = np.random.default_rng(0)
    writer = cv2.VideoWriter(
        str(tmp_path / "noise.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 64)
    )
    frame = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for _ in range(8):
        frame[:32, :32] = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        writer.write(frame)
    writer.release()
    return tmp_path / "noise.avi"


@pytest.mark.extras("hosts", "transformers")
def test_quick_run(benchmark, video, recorded, capsys):
    benchmark.main([str(video), "--quick", "--rounds", "2", "--record"])
    rows = recorded("hosts").rows
    methods = [row["method"] for row in rows]
    assert methods == ["ToMe", "Eventful", "host", "ours", "Eventful"]
    assert {row["tokens"] for row in rows} == {64}
    *_, host, ours, _ = rows
    assert host["error"] == 0 and ours["error"] < 1e-5  # our model with the host's weights
    assert host["dense_seconds"] == ours["dense_seconds"] == min(host["seconds"], ours["seconds"])
    for row in (row for row in rows if row["setting"]):
        assert row["macs_ratio"] > 1
        assert 0 < row["error"] < 1
        assert row["reached"] == pytest.approx(row["speedup"] / row["macs_ratio"])
    assert "ViT, 2 layers" in capsys.readouterr().out


def test_the_error_is_relative_to_what_varies(benchmark):
    expected = torch.randn(1, 5, 3)
    found = expected + 0.1 * (expected - expected.mean(1, keepdim=True))
    assert benchmark.error_of(found + 0, expected) == pytest.approx(0.1)
    # a constant added to both leaves it as it is
    assert benchmark.error_of(found + 9, expected + 9) == pytest.approx(0.1, rel=1e-4)


def test_rounds_below_one_are_refused(benchmark, capsys):
    with pytest.raises(SystemExit):
        benchmark.main(["video.mp4", "--rounds", "0"])
    assert "--rounds 0: give 1 or more." in capsys.readouterr().err
