"""The benchmark of streams that are held, with a worker that takes as long as is said."""

from __future__ import annotations

import time
from concurrent.futures import Future
from types import SimpleNamespace

import numpy as np
import pytest

from mmvitaccel.records.record import Record, path_of, write_record
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


SHOWN = [np.zeros((4, 4, 3), np.uint8)]


@pytest.mark.parametrize(
    ("limit", "tried", "largest"),
    [
        (30, [24, 6, 12, 18], 24),  # and a few below, for the plot
        (24, [24, 6, 12, 18], 24),
        (19, [24, 20, 10, 15, 17, 18, 19, 4, 9, 14], 19),
        (1, [24, 20, 10, 5, 2, 1], 1),
        (0, [24, 20, 10, 5, 2, 1], 0),
    ],
)
def test_the_largest_number_is_searched(benchmark, monkeypatch, limit, tried, largest):
    numbers = []

    class Limited:
        def __init__(self, worker, shown, count):
            self.count = count
            numbers.append(count)

        def p90(self, rate, seconds):
            return 0.1 if self.count <= limit else None

        def close(self):
            pass

    monkeypatch.setattr(benchmark, "Cameras", Limited)
    found, played = benchmark.held(None, SHOWN, 2.0, 47.5, 64, 0.5)
    assert found == largest and list(played) == numbers
    assert numbers == tried
    assert {number for number, p90 in played.items() if p90 is None} == {
        number for number in numbers if number > limit
    }


def test_no_more_are_played_than_are_computed_or_may_be(benchmark):
    with StreamWorker(Sleeper(0.001), max_open=8) as worker:
        found, played = benchmark.held(worker, SHOWN, 0.5, 100.0, 3, 0.2)
        assert (found, list(played)) == (3, [3])  # so slow that none is played for the plot
        assert 0 < played[3] < 2
        assert benchmark.held(worker, SHOWN, 10.0, 9.0, 3, 0.2) == (0, {})
    with StreamWorker(Sleeper(0.2), max_open=4) as worker:
        found, played = benchmark.held(worker, SHOWN, 50.0, 50.0, 3, 0.2)
        assert found == 0 and list(played) == [1]


def test_what_is_computed_at_most_is_of_no_more_streams_than_are_held(benchmark):
    args = SimpleNamespace(batch=8, most=64, rates=[5, 20], seconds=0.05)
    opened = []

    class Noted(StreamWorker):
        def open_stream(self, stream, token, after=None):
            opened.append(stream)
            super().open_stream(stream, token, after)

    for seconds, most in ((0.09, 2), (0.001, 8), (0.3, 1)):
        with Noted(Sleeper(seconds)) as worker:
            found, each = benchmark.capacity_of(worker, SHOWN, args)
        assert 0 < found <= 1 / seconds and each == 0
        assert 1 <= len(set(opened)) <= most
        opened.clear()


def test_an_error_that_is_no_refusal_ends_the_run(benchmark, monkeypatch):
    with StreamWorker(Sleeper(0.0)) as worker:
        cameras = benchmark.Cameras(worker, SHOWN, 1)
        broken = Future()
        broken.set_exception(RuntimeError("the service said 408"))
        monkeypatch.setattr(cameras, "bring", lambda name: broken)
        with pytest.raises(RuntimeError, match="the service said 408"):
            cameras.p90(100.0, 0.05)


def test_what_is_left_out_is_not_held(benchmark):
    with StreamWorker(Sleeper(0.2), max_waiting=1) as worker:
        cameras = benchmark.Cameras(worker, [np.zeros((4, 4, 3), np.uint8)], 1)
        assert cameras.p90(100.0, 0.1) is None


@pytest.fixture
def few(benchmark, monkeypatch):
    """The small detector, smaller still, and windows that take no time."""
    small = benchmark.MODELS["small"]
    choice = benchmark.Choice(small.config, 64, 8, dict(depth=2, window_block_indexes=(0,)))
    monkeypatch.setitem(benchmark.MODELS, "small", choice)
    return ["--rates", "0.5", "--seconds", "0.1", "--most", "2", "--batch", "2", "--frames", "3"]


def check_rows(rows, ways):
    held = [row for row in rows if row["largest"]]
    assert [(row["way"], row["mode"], row["k"]) for row in held] == [
        (way, mode, k) for way in ways for mode, k in (("dense", None), ("eventful", 8))
    ]
    for dense, eventful in zip(held[::2], held[1::2]):
        assert dense["stream_megabytes"] == 0 < eventful["stream_megabytes"]
        assert dense["ratio"] is None
        ratio = eventful["frames_per_second"] / dense["frames_per_second"]
        assert eventful["ratio"] == pytest.approx(ratio)
    return held


def test_rows(benchmark, few, noise_video, recorded, monkeypatch, capsys):
    monkeypatch.setattr(benchmark.Cameras, "p90", lambda self, rate, seconds: 0.5)
    benchmark.main([str(noise_video), *few, "--record", "held"])
    held = check_rows(recorded("held").rows, ["worker"])
    assert all((row["streams"], row["rate"], row["p90_ms"]) == (2, 0.5, 500) for row in held)
    assert "eventful" in capsys.readouterr().out


def test_where_not_even_one_is_held_a_row_says_so(
    benchmark, few, noise_video, recorded, monkeypatch
):
    monkeypatch.setattr(benchmark.Cameras, "p90", lambda self, rate, seconds: None)
    benchmark.main([str(noise_video), *few, "--record", "held"])
    rows = recorded("held").rows
    held = check_rows(rows, ["worker"])
    assert all((row["streams"], row["p90_ms"]) == (0, None) for row in held)
    assert {row["streams"] for row in rows} == {0, 1, 2}


@pytest.mark.extras("serve", "ray")
def test_rows_of_the_service(benchmark, few, noise_video, recorded):
    few[few.index("--rates") + 1] = "0.02"  # on a busy machine too
    wanted = benchmark.Cameras.p90
    benchmark.Cameras.p90 = lambda self, rate, seconds: wanted(self, 5.0, seconds)
    benchmark.main([str(noise_video), *few, "--ray", "--record", "held"])
    held = check_rows(recorded("held").rows, ["worker", "Ray"])
    assert [row["streams"] for row in held] == [2] * 4
    assert held[1]["stream_megabytes"] == held[3]["stream_megabytes"]


def test_the_plot_has_a_diagram_for_each_rate(load_benchmark, recorded, tmp_path, capsys):
    plot = load_benchmark("streams_held_plot")

    def row(rate, streams, p90_ms, mode="dense", way="worker"):
        return dict(
            model="small", way=way, mode=mode, rate=rate, streams=streams, p90_ms=p90_ms
        )  # fmt: skip

    rows = [
        row(2.0, 3, 90.0), row(2.0, 2, 60.0), row(2.0, 4, None), row(2.0, 1, 9.0, way="Ray"),
        row(5.0, 1, 20.0, mode="eventful"),
    ]  # fmt: skip
    drawn = plot.panels(rows)
    assert [panel.level[1] for panel in drawn] == [500, 200]
    assert [(line.label, line.x, line.y) for panel in drawn for line in panel.lines] == [
        ("small dense", (2, 3), (60.0, 90.0)), ("small dense, Ray", (1,), (9.0,)),
        ("small eventful", (1,), (20.0,)),
    ]  # fmt: skip
    picture = tmp_path / "held.png"
    with pytest.raises(SystemExit):
        plot.main([str(picture), "held"])
    assert "record 'held' was not made yet" in capsys.readouterr().err
    about = {field: {} for field in ("machine", "versions")}
    record = Record("c", "2026-01-31", 1.0, "0", False, others=None, rows=rows, **about)
    write_record(path_of("held"), record)
    with pytest.raises(SystemExit):
        plot.main([str(picture), "held", "--rates", "3"])
    assert "no row of held has a rate of [3.0]" in capsys.readouterr().err
    plot.main([str(picture), "held"])
    assert picture.read_bytes().startswith(b"\x89PNG") and str(picture) in capsys.readouterr().out
