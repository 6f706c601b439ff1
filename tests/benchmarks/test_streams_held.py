"""The benchmark of streams that are held, with a worker that takes as long as is said."""

from __future__ import annotations

import time

import numpy as np
import pytest

from mmvitaccel.serving import StreamWorker
from mmvitaccel.serving.model import Prepared

pytest.importorskip("mmdet")


class Sleeper:
    """A model that takes so long for a frame, and none at all in the first place."""

    handle = None

    def __init__(self, seconds):
        self.seconds = seconds

    def prepare(self, frame):
        return Prepared(frame.shape, frame)

    def run(self, batch):
        time.sleep(self.seconds * len(batch))
        return [None] * len(batch)


@pytest.fixture
def benchmark(load_benchmark):
    return load_benchmark("streams_held")


def test_a_number_is_held_or_not(benchmark):
    shown = [np.zeros((4, 4, 3), np.uint8)]
    with StreamWorker(Sleeper(0.001), max_open=4) as worker:
        (number, p90), played = benchmark.held(worker, shown, 2.0, 100.0, 3, 0.2)
        assert number == 3 and 0 < p90 < 0.5  # as many as are tried
        assert played == [(number, p90)]
    with StreamWorker(Sleeper(0.2), max_open=4) as worker:
        best, played = benchmark.held(worker, shown, 50.0, 5.0, 3, 0.2)
        assert best == (0, None) and [number for number, _ in played] == [1]


def test_what_is_left_out_is_not_held(benchmark):
    with StreamWorker(Sleeper(0.2), max_waiting=1) as worker:
        cameras = benchmark.Cameras(worker, [np.zeros((4, 4, 3), np.uint8)], 1)
        assert cameras.p90(100.0, 0.1) is None


def test_the_plot_has_a_diagram_for_each_rate(benchmark, monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(benchmark, "save_panels", lambda panels, path: drawn.extend(panels))
    played = [
        benchmark.Played("small dense", 2.0, 3, 90.0),
        benchmark.Played("small dense", 2.0, 2, 60.0),
        benchmark.Played("small dense", 2.0, 4, None),
        benchmark.Played("small eventful", 5.0, 1, 20.0),
    ]
    benchmark.plot(played, tmp_path / "held.png")
    assert [panel.level[1] for panel in drawn] == [500, 200]
    assert [(line.label, line.x, line.y) for line in drawn[0].lines] == [
        ("small dense", [2, 3], [60.0, 90.0]), ("small eventful", [], []),
    ]  # fmt: skip


def test_rows(benchmark, noise_video, recorded, monkeypatch, capsys, tmp_path):
    small = benchmark.MODELS["small"]
    few = benchmark.Choice(small.config, 64, 8, dict(depth=2, window_block_indexes=(0,)))
    monkeypatch.setitem(benchmark.MODELS, "small", few)
    asked = ["--rates", "0.5", "--seconds", "0.1", "--rounds", "1", "--most", "2", "--frames", "3"]
    monkeypatch.setattr(benchmark.Cameras, "p90", lambda self, rate, seconds: 0.5)
    picture = tmp_path / "held.png"
    benchmark.main([str(noise_video), *asked, "--record", "held", "--plot", str(picture)])
    assert picture.read_bytes().startswith(b"\x89PNG")
    rows = recorded("held").rows
    assert [(row["mode"], row["k"], row["rate"]) for row in rows] == [
        ("dense", None, 0.5), ("eventful", 8, 0.5),
    ]  # fmt: skip
    assert all(row["streams"] == 2 and row["p90_ms"] == 500 for row in rows)
    assert rows[0]["stream_megabytes"] == 0 < rows[1]["stream_megabytes"]
    assert rows[0]["frames_per_second"] > 0 and "eventful" in capsys.readouterr().out
