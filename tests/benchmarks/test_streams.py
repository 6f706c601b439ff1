"""The benchmark of streams in a batch, with a small model in place of ViTDet-B."""

from __future__ import annotations

from functools import partial

import cv2
import numpy as np
import pytest
import torch

from mmvitaccel import TopK
from mmvitaccel.testing.models import vitdet


@pytest.fixture
def benchmark(load_benchmark, monkeypatch):
    module = load_benchmark("streams")
    small = dict(
        embed_dim=32, depth=2, num_heads=2, window_size=2, window_block_indexes=(0,), patch_size=32
    )
    monkeypatch.setattr(module, "vitdet", partial(vitdet, **small))
    return module


@pytest.fixture
def video(tmp_path):
    """Ten frames of noise, 64 x 48 pixels."""
    path = tmp_path / "video.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    rng = np.random.default_rng(0)
    for _ in range(10):
        writer.write(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    writer.release()
    return path


def test_rows(benchmark, video, recorded, capsys):
    asked = ["--sizes", "128", "--streams", "2", "3", "--k", "5", "--frames", "1", "--record", "s"]
    benchmark.main([str(video), *asked])
    rows = recorded("s").rows
    assert [(row["streams"], row["k"]) for row in rows] == [(2, 5), (3, 5)]
    shown = capsys.readouterr().out.splitlines()[2:]
    for row, line in zip(rows, shown):
        assert row["ratio"] == pytest.approx(row["batch_ms"] / row["single_ms"])
        assert f"{row['ratio']:.2f}" in line
        assert row["error"] < 1e-5 and 0 <= row["flipped"] <= 1


def test_another_choice_is_noted_and_what_was_chosen_goes_on(benchmark):
    replay = benchmark.Replay(TopK(2))
    error = torch.tensor([[3.0, 1.0, 2.0, 0.0]])
    for passed, flips in (([True, False, True, False], False), ([True, True, False, False], True)):
        replay.coming = [torch.tensor([passed])]
        chosen = replay.select(error)
        assert chosen.tolist() == [[i for i, p in enumerate(passed) if p]]
        assert replay.flipped == flips
