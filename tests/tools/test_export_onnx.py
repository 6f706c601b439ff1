from __future__ import annotations

import pytest

from mmvitaccel import extras
from mmvitaccel.deploy import onnx_export

needs_onnx = pytest.mark.extras("deploy", "onnx", "onnxruntime")


@needs_onnx
@pytest.mark.parametrize("options", [[], ["--no-nms"], ["--part", "backbone"], ["--static"]])
def test_file_and_report(run_tool, efficientvit_config, tmp_path, capsys, options):
    import onnx

    run_tool(
        "deploy/export_onnx", efficientvit_config, "--out", "m.onnx", "--shape", 64, 96, *options
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("m.onnx: ")
    assert len(lines) == (2 if "--static" in options else 6)
    assert "1 x 64 x 96: largest difference" in lines[1]
    names = [out.name for out in onnx.load(str(tmp_path / "m.onnx")).graph.output]
    assert names == (
        ["level0", "level1", "level2"] if "backbone" in options else ["dets", "labels"]
    )


@needs_onnx
def test_batch_norm_of_other_backbones(run_tool, detector_config, capsys):
    """A ResNet, which has no folding of its own."""
    run_tool("deploy/export_onnx", detector_config, "--out", "m.onnx", "--shape", 64, 96)
    assert " 0 of 5 boxes missing" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--out", "nowhere/m.onnx"], "--out nowhere/m.onnx: the folder does not exist"),
        (["--shape", "0", "64"], "--shape 0 64: give at least one pixel"),
    ],
)
def test_mistakes(run_tool, efficientvit_config, capsys, options, sentence):
    with pytest.raises(SystemExit):
        run_tool("deploy/export_onnx", efficientvit_config, *options)
    assert sentence in capsys.readouterr().err


@needs_onnx
def test_a_file_that_differs_is_refused(run_tool, efficientvit_config, capsys, monkeypatch):
    run = onnx_export.run_session
    monkeypatch.setattr(onnx_export, "run_session", lambda s, x: [out + 1 for out in run(s, x)])
    with pytest.raises(SystemExit):
        run_tool("deploy/export_onnx", efficientvit_config, "--part", "backbone", "--shape", 64, 64)
    assert "computes something else than torch" in capsys.readouterr().err


def test_missing_package(run_tool, efficientvit_config, capsys, monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        run_tool("deploy/export_onnx", efficientvit_config)
    assert capsys.readouterr().err.startswith(
        "error: onnx and onnxruntime are not installed: pip install 'mmvitaccel[deploy]'"
    )
