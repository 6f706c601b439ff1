"""Formats of small detectors with random weights, tested by a metric that every output moves."""

from __future__ import annotations

import json

import pytest

from mmvitaccel.analysis.formats import formats
from mmvitaccel.analysis.sweep.evaluate import evaluate
from mmvitaccel.runner.config import load_config

needs_files = pytest.mark.extras("deploy", "onnx", "onnxruntime", "openvino")
needs_nncf = pytest.mark.extras("deploy", "onnx", "openvino", "nncf")
EVENTFUL = [
    "default_hooks.eventful.type=mmvitaccel.EventfulHook",
    "default_hooks.eventful.policy.type=TopK",
    "default_hooks.eventful.policy.k=6",
]
TOME = ["default_hooks.tome.type=mmvitaccel.ToMeHook", "default_hooks.tome.r=5"]


@pytest.fixture
def compare(run_tool, tmp_path, weights_of):
    """Runs the tool on a config; returns the rows by format."""

    def run(config, *options, cfg_options=()):
        last = ["--cfg-options", *cfg_options] if cfg_options else []
        run_tool(
            "analysis/compare_formats", config, weights_of(config), "--no-memory",
            "--json", "rows.json", *options, *last,
        )  # fmt: skip
        return {row["format"]: row for row in json.loads((tmp_path / "rows.json").read_text())}

    return run


def scores(rows):
    return {name: row["figures"]["score/sum"] for name, row in rows.items()}


def test_without_files(compare, kernel, m0_config, weights_of, tmp_path, capsys, monkeypatch):
    rows = compare(m0_config, "--formats", "torch", "torch-bfloat16", "compiled-steps")
    cfg = load_config(str(m0_config), {})
    tested = evaluate(cfg, weights_of(m0_config), tmp_path / "tested")
    found = scores(rows)
    assert found["torch"] == pytest.approx(tested["score/sum"], rel=1e-5)
    assert rows["torch"]["figures"]["coco/bbox_mAP"] == tested["coco/bbox_mAP"]
    assert found["compiled-steps"] == pytest.approx(found["torch"], rel=1e-4)
    assert found["torch-bfloat16"] != found["torch"]
    assert found["torch-bfloat16"] == pytest.approx(found["torch"], rel=0.1)
    assert rows["torch"]["error"] is None and rows["compiled-steps"]["error"] < 1e-4
    assert 1e-4 < rows["torch-bfloat16"]["error"] < 0.2
    assert rows["torch"]["replaces"] == ["backbone", "neck", "bbox_head"]
    assert rows["compiled-steps"]["replaces"] == ["backbone"]
    for row in rows.values():
        assert row["batches"] == row["figures"]["score/images"] == 5
        assert 0 < row["ms_p50"] <= row["ms_p99"] and row["size_bytes"] > 2e6
    printed = capsys.readouterr().out
    assert "| compiled-steps | backbone |" in printed

    # a row has the figures of its own artifact: one that computes something else shows it
    right = formats.CompiledEfficientViT.forward
    monkeypatch.setattr(
        formats.CompiledEfficientViT, "forward", lambda self, x: [o * 0 for o in right(self, x)]
    )
    rows = compare(m0_config, "--formats", "torch", "compiled-steps", "--metric", "score/sum")
    assert scores(rows)["torch"] == found["torch"]
    assert scores(rows)["compiled-steps"] != pytest.approx(found["torch"], rel=1e-3)


@needs_files
def test_files(compare, m0_config, tmp_path):
    rows = compare(m0_config, "--formats", "torch", "onnx", "openvino", "--keep", "files")
    found = scores(rows)
    for name, files in (("onnx", ["model.onnx"]), ("openvino", ["model.xml", "model.bin"])):
        assert found[name] == pytest.approx(found["torch"], rel=1e-4)
        assert rows[name]["error"] < 1e-3
        sizes = [(tmp_path / "files" / file).stat().st_size for file in files]
        assert rows[name]["size_bytes"] == sum(sizes)
        assert rows[name]["replaces"] == ["backbone", "neck", "bbox_head"]


@needs_files
def test_openvino_in_bfloat16(compare, m0_config, tmp_path):
    from openvino import Core

    if "BF16" not in Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("OpenVINO computes in no bfloat16 on this processor")
    names = ("torch", "openvino", "openvino-bfloat16")
    rows = compare(m0_config, "--formats", *names, "--keep", "files")
    assert rows["openvino"]["error"] < 1e-3 < rows["openvino-bfloat16"]["error"] < 0.2
    assert rows["openvino"]["size_bytes"] == rows["openvino-bfloat16"]["size_bytes"]
    found = scores(rows)
    assert found["torch"] != found["openvino-bfloat16"]
    assert found["openvino-bfloat16"] == pytest.approx(found["torch"], rel=0.1)
    assert {path.name for path in (tmp_path / "files").iterdir()} == {"model.xml", "model.bin"}


@needs_files
def test_tokens_merged_in_a_file(compare, scored):
    rows = compare(scored[0], "--formats", "torch", "onnx", cfg_options=TOME)
    assert rows["onnx"]["error"] < 1e-3
    found = scores(rows)
    assert found["onnx"] == pytest.approx(found["torch"], rel=1e-4)
    assert found["torch"] != scores(compare(scored[0], "--formats", "torch"))["torch"]


@needs_nncf
def test_int8(compare, m0_config):
    rows = compare(m0_config, "--formats", "torch", "openvino-int8", "--calibration", 3)
    found = scores(rows)
    assert found["openvino-int8"] != found["torch"]
    assert 1e-6 < rows["openvino-int8"]["error"] < 0.5
    assert rows["openvino-int8"]["size_bytes"] < 0.5 * rows["torch"]["size_bytes"]


def test_a_model_with_a_memory(compare, scored, weights_of, tmp_path):
    """Each format has streams of its own, as if it ran alone."""
    _, videos = scored
    rows = compare(videos, "--formats", "torch", "torch-bfloat16", cfg_options=EVENTFUL)
    options = dict(option.split("=") for option in EVENTFUL)
    options["default_hooks.eventful.policy.k"] = 6
    tested = evaluate(load_config(str(videos), options), weights_of(videos), tmp_path / "tested")
    assert scores(rows)["torch"] == pytest.approx(tested["score/sum"], rel=1e-5)
    assert scores(rows)["torch-bfloat16"] == pytest.approx(tested["score/sum"], rel=0.1)
    dense = evaluate(load_config(str(videos), {}), weights_of(videos), tmp_path / "dense")
    assert abs(dense["score/sum"] / tested["score/sum"] - 1) > 1e-5


def test_memory_is_of_a_process_of_its_own(run_tool, detector_config, weights_of, tmp_path):
    run_tool(
        "analysis/compare_formats", detector_config, weights_of(detector_config),
        "--formats", "torch", "--json", "rows.json",
    )  # fmt: skip
    (row,) = json.loads((tmp_path / "rows.json").read_text())
    assert row["size_bytes"] < row["memory_bytes"] < 2**30


def test_what_cannot_be_is_left_out_with_the_reason(compare, scored, capsys):
    rows = compare(scored[1], cfg_options=EVENTFUL)
    assert list(rows) == ["torch", "torch-bfloat16"]
    said = capsys.readouterr().out
    assert "left out: compiled-steps: Eventful would be bypassed" in said
    for name in ("onnx", "openvino", "openvino-bfloat16", "openvino-int8"):
        assert f"left out: {name}: " in said


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            ["--formats", "compiled-steps"],
            "compiled-steps: CompiledEfficientViT: the model is a",
        ),
        (["--calibration", 0], "--calibration 0: give at least one image"),
        (["--keep", "."], "--keep . exists already; name a new folder"),
    ],
)
def test_mistakes(compare, scored, capsys, options, sentence):
    with pytest.raises(SystemExit) as refused:
        compare(scored[0], *options)
    assert refused.value.code == 2
    assert sentence in capsys.readouterr().err
