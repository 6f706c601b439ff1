from __future__ import annotations

import json

import cv2
import pytest
import torch

from mmvitaccel.core.eventful.modes import exact


@pytest.fixture
def benchmark(load_benchmark, monkeypatch, small_vitdet):
    """The script, with a small model in place of ViTDet-B."""
    module = load_benchmark("eventful")
    monkeypatch.setattr(module, "vitdet", small_vitdet)
    monkeypatch.setattr(module, "BUDGETS", {128: (4, 16)})
    return module


def test_table_json_and_plot(benchmark, noise_video, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ["--modes", "exact", "tokenwise", "--frames", "2"]
    benchmark.main([str(noise_video), *asked, "--json", "out.json", "--plot", "out.png"])
    rows = json.loads((tmp_path / "out.json").read_text())
    assert [(row["mode"], row["k"]) for row in rows] == [
        ("exact", 4), ("exact", 16), ("tokenwise", 4), ("tokenwise", 16),
    ]  # fmt: skip
    for row in rows:
        assert row["speedup"] == pytest.approx(row["dense_ms"] / row["steady_ms"])
        assert row["dense_ms"] == min(row["torch_ms"], row["openvino_ms"] or row["torch_ms"])
        assert row["frames"] == 2 and row["state_mb"] > 0
        everything = row["k"] == 16
        assert (row["macs_ratio"] == pytest.approx(1.0)) == everything
        assert (row["error"] < 1e-5) == (row["random_error"] < 1e-5) == everything
        assert row["dtype"] == "float32" and row["dense_error"] == 0
    assert cv2.imread(str(tmp_path / "out.png")) is not None
    printed = capsys.readouterr().out.splitlines()
    assert len([row for row in printed if row.startswith(" 128 ")]) == 4


def test_bfloat16_is_compared_with_float32(benchmark, noise_video, tmp_path):
    out = tmp_path / "out.json"
    benchmark.main([str(noise_video), "--frames", "2", "--dtype", "bfloat16", "--json", str(out)])
    few, every = json.loads(out.read_text())
    assert 1e-4 < few["dense_error"] == every["dense_error"] < 0.05
    assert every["error"] < 2 * every["dense_error"]
    assert few["error"] > every["error"]


def test_a_video_that_is_too_short_or_missing(benchmark, noise_video, capsys):
    for argv, sentence in (
        ([str(noise_video), "--frames", "20"], "has 10 frames and 23 are needed; set --frames"),
        (["nowhere.mp4"], "nowhere.mp4 does not exist"),
    ):
        with pytest.raises(SystemExit):
            benchmark.main(argv)
        assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_drift_stays_small_and_would_be_seen(
    load_benchmark, noise_video, recorded, monkeypatch, dtype
):
    drift = load_benchmark("eventful_drift")
    asked = ["--frames", "30", "--size", "128", "--k", "6", "--width", "128", "--depth", "3"]

    def rows():
        drift.main([str(noise_video), *asked, "--dtype", dtype, "--record", "drift"])
        return recorded("drift").rows

    sound = rows()
    assert [row["frame"] for row in sound] == [1, 2, 5, 10, 20, 30]
    assert {(row["width"], row["dtype"]) for row in sound} == {(128, dtype)}
    assert sound[0]["deviation"] < 1e-6 and 0 < sound[-1]["largest"] < 5e-5
    assert sound[-1]["largest"] >= max(row["deviation"] for row in sound)
    monkeypatch.setattr(exact, "exchange_keys", lambda *given: None)
    assert rows()[-1]["deviation"] > 1e-2


def test_attention_whose_drift_is_measured_is_not_flat(load_benchmark):
    model = load_benchmark("eventful_drift").make_model(128, 128, 3)
    seen = []
    qkv = model.blocks[2].attn.qkv
    qkv.register_forward_hook(lambda module, given, out: seen.append(out.flatten(0, -2)))
    with torch.inference_mode():
        model(torch.rand(1, 3, 128, 128) * 4 - 2)
    q, k = (t.unflatten(-1, (2, 64)).transpose(0, 1) for t in seen[0].split(128, -1)[:2])
    weights = (q @ k.mT / 8).softmax(-1)  # (2 heads, 64 tokens, 64 tokens)
    assert float(weights.amax(-1).mean()) > 4 / 64


@pytest.mark.parametrize(("name", "value", "unit"), [("width", 100, 64), ("depth", 4, 3)])
def test_a_shape_that_drift_cannot_be_measured_on(load_benchmark, capsys, name, value, unit):
    with pytest.raises(SystemExit, match="2"):
        load_benchmark("eventful_drift").main(["video.mp4", f"--{name}", str(value)])
    assert f"--{name} {value}: give a multiple of {unit}." in capsys.readouterr().err
