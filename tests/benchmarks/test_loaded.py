from __future__ import annotations

import json
from functools import partial

import pytest

from mmvitaccel.core.kernels import openmp_wait
from mmvitaccel.testing.models import vitdet

SMALL = dict(
    embed_dim=32, depth=2, num_heads=2, window_size=2, window_block_indexes=(0,), patch_size=32
)


def test_rows_of_every_model(load_benchmark, monkeypatch, tmp_path, recorded):
    benchmark = load_benchmark("loaded")
    monkeypatch.setattr(benchmark, "vitdet", partial(vitdet, **SMALL))
    monkeypatch.setattr(benchmark, "first_frames", partial(frames, 64))
    monkeypatch.setattr(benchmark, "SIZE", 64)
    looks, look = [], openmp_wait.Watch.look
    monkeypatch.setattr(
        openmp_wait.Watch, "look", lambda watch: (looks.append(watch), look(watch))[1]
    )
    asked = ["video", "--models", "dense", "eventful", "--busy", "1"]
    benchmark.main([*asked, "--json", str(tmp_path / "out.json"), "--record", "loaded"])
    rows = json.loads((tmp_path / "out.json").read_text())
    assert [(row["model"], row["sleeps"]) for row in rows] == [
        ("dense", False), ("dense", True), ("eventful", False), ("eventful", True),
    ]  # fmt: skip
    for row in rows:
        assert row["growth"] == pytest.approx(row["busy_ms"] / row["idle_ms"])
        assert row["worst_ms"] >= row["busy_ms"] > 0 and row["busy"] == 1
    # 5 calls to warm up, 20 alone and 20 beside, two blocks each, in one of the two runs
    assert len(looks) == 2 * (5 + 20 + 20)
    assert recorded("loaded").rows == rows


def test_a_row_begins_with_threads_that_spin(load_benchmark, monkeypatch):
    watch = openmp_wait.Watch()
    watch.asleep = True  # as the row before left it
    monkeypatch.setattr(openmp_wait, "watch", lambda: watch)
    seen = []
    load_benchmark("loaded").measure("m0", lambda: seen.append(watch.asleep), 4, 0, False)
    assert seen and not any(seen) and watch._leave.is_set()


def frames(size, video, side, count):
    import torch

    torch.manual_seed(0)
    return list(torch.randn(count, 1, 3, size, size))
