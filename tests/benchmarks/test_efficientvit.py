"""The benchmark of the deployed EfficientViT: its ways compute the same, its figures fit."""

from __future__ import annotations

import json

import pytest
import torch

from mmvitaccel.errors import UserError


@pytest.fixture
def benchmark(load_benchmark, monkeypatch):
    module = load_benchmark("efficientvit")
    monkeypatch.setattr(module, "SETTLING", 0.0)
    monkeypatch.setattr(module, "BURST", 0.0)
    return module


def test_quick_run(benchmark, tmp_path, capsys):
    out = tmp_path / "figures.json"
    benchmark.main(["--quick", "--json", str(out)])
    rows = {row["way"]: row for row in json.loads(out.read_text())}
    assert set(rows) == {way for way, made in benchmark.WAYS.items() if not made.compiles}
    timed = {way: row for way, row in rows.items() if row["seconds"]}
    assert {"traced", "eager", "channels-last", "tokens"} <= set(timed)
    exact = [row for way, row in timed.items() if way != "OpenVINO bfloat16"]
    assert all(row["error"] < 1e-4 for row in exact)
    # a folded and traced model is not eager itself: another order of sums somewhere
    assert max(row["error"] for row in exact) > 0
    printed = capsys.readouterr().out
    authors = min(rows[way]["seconds"] for way in ("traced", "traced, frozen"))
    assert f"{authors / rows['tokens']['seconds']:.2f}x" in printed
    assert "m0, batch 1: best is " in printed
    # the published 79.19 M, less the classifier's 0.19 M
    assert "0.08 G multiply-adds, " in printed


def test_a_way_that_is_not_there_is_named(benchmark, monkeypatch):
    model, x = benchmark.build_model("m0"), torch.randn(1, 3, 224, 224)

    def missing(model, x):
        raise RuntimeError("no C++ compiler\nand more")

    monkeypatch.setitem(benchmark.WAYS, "compiled", benchmark.Way(missing, None, True))
    with torch.no_grad():
        rows = benchmark.measure("m0", model, x, ["traced", "compiled"], 1)
    assert rows[1].reason == "RuntimeError: no C++ compiler"
    assert "not available: RuntimeError: no C++ compiler" in benchmark.table(rows)


def test_a_way_that_computes_something_else_is_refused(benchmark, monkeypatch):
    model, x = benchmark.build_model("m0"), torch.randn(1, 3, 224, 224)
    way = benchmark.Way(lambda model, x: lambda: [out * 1.01 for out in model(x)])
    monkeypatch.setitem(benchmark.WAYS, "eager", way)
    with torch.no_grad(), pytest.raises(UserError, match="eager: its output is off by"):
        benchmark.measure("m0", model, x, ["eager"], 1)


def test_the_faster_of_the_authors_ways_is_the_baseline(benchmark):
    seconds = {"traced": 3.0, "traced, frozen": 2.0, "timm, compiled": 4.0, "eager": 1.0}
    rows = [benchmark.Row("m0", 1, way, value, 0.0) for way, value in seconds.items()]
    assert benchmark.summary(rows) == (
        "m0, batch 1: best is eager, 2.00x traced, frozen (authors), 4.00x timm, compiled (timm)"
    )


def test_a_short_way_is_repeated_and_settles_untimed(benchmark, monkeypatch):
    now, calls = 0.0, []

    def run(name, seconds):
        nonlocal now
        calls.append(name)
        now += seconds

    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: now)
    monkeypatch.setattr(benchmark, "SETTLING", 2.0)
    monkeypatch.setattr(benchmark, "BURST", 3.0)
    ways = {"slow": lambda: run("slow", 4.0), "quick": lambda: run("quick", 1.0)}
    assert benchmark.time_in_turn(ways, 2) == {"slow": 4.0, "quick": 1.0}
    assert calls == 2 * (["slow"] * 2 + ["quick"] * 5)


def test_bfloat16_stands_for_itself_with_its_error(benchmark):
    seconds = {"OpenVINO": (2.0, 1e-6), "OpenVINO bfloat16": (3.0, 2e-2), "eager": (1.0, 0.0)}
    rows = [benchmark.Row("m0", 1, way, *values) for way, values in seconds.items()]
    best = next(row for row in benchmark.figures(rows, 10, 1.0) if row["best"])
    assert best["way"] == "eager"
    assert (best["openvino_over_this"], best["openvino_bfloat16_over_this"]) == (2.0, 3.0)
    assert best["openvino_bfloat16_error"] == 2e-2
