"""The benchmark of streams in a batch, with a small model in place of ViTDet-B."""

from __future__ import annotations

import pytest
import torch

from mmvitaccel import TopK


@pytest.fixture
def benchmark(load_benchmark, monkeypatch, small_vitdet):
    module = load_benchmark("streams")
    monkeypatch.setattr(module, "vitdet", small_vitdet)
    return module


def test_rows(benchmark, noise_video, recorded, capsys):
    asked = ["--sizes", "128", "--streams", "2", "3", "--k", "5", "--frames", "1", "--record", "s"]
    benchmark.main([str(noise_video), *asked])
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
