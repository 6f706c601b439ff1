"""The benchmark of the pyramid, on a small one."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def benchmark(load_benchmark):
    return load_benchmark("eventful_neck")


@pytest.fixture(scope="module")
def video(moving_clip):
    return moving_clip(6, (36, 64))


def test_table_and_json(benchmark, video, tmp_path, capsys):
    out = tmp_path / "out.json"
    args = [video, "--quick", "--k", "64", "8", "--frames", "3", "--json", str(out)]
    benchmark.main(args)
    everything, some = json.loads(out.read_text())
    assert len(capsys.readouterr().out.splitlines()) == 2 + 2
    assert everything["k"] == 64 and everything["macs_ratio"] == 1 and everything["error"] < 1e-5
    assert some["macs_ratio"] > 1 and 0 < some["error"] < 1 and some["state_mb"] > 0
    for row in (everything, some):
        assert row["speedup"] == pytest.approx(row["dense_ms"] / row["steady_ms"])
