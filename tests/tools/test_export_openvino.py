from __future__ import annotations

import builtins
import subprocess
import sys

import pytest
import torch

from mmvitaccel import extras
from mmvitaccel.deploy import openvino_export
from mmvitaccel.deploy.openvino_export import open_openvino
from mmvitaccel.runner.config import load_config
from mmvitaccel.runner.session import build_model

needs_openvino = pytest.mark.extras("deploy", "onnx", "openvino")
needs_nncf = pytest.mark.extras("deploy", "onnx", "openvino", "nncf")
RUN = ["deploy/export_openvino", "--shape", 64, 96]


@needs_openvino
@pytest.mark.parametrize("options", [[], ["--no-nms"], ["--part", "backbone"], ["--static"]])
def test_file_and_report(run_tool, efficientvit_config, tmp_path, capsys, options):
    run_tool(RUN[0], efficientvit_config, "--out", "m.xml", *RUN[1:], *options)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("m.xml and .bin: ")
    assert len(lines) == (2 if "--static" in options else 6)
    assert "1 x 64 x 96: largest difference" in lines[1]
    outputs = open_openvino(tmp_path / "m.xml")(torch.randn(1, 3, 64, 96))
    assert len(outputs) == (3 if "backbone" in options else 2)
    assert sys.modules["openvino_telemetry"] is None


@needs_openvino
def test_a_file_that_differs_is_refused(run_tool, efficientvit_config, capsys, monkeypatch):
    open_file = openvino_export.open_openvino
    monkeypatch.setattr(
        openvino_export, "open_openvino", lambda p: lambda x: [o + 1 for o in open_file(p)(x)]
    )
    with pytest.raises(SystemExit) as refused:
        run_tool(RUN[0], efficientvit_config, "--part", "backbone", *RUN[1:])
    assert refused.value.code == 2
    assert "differs from torch by more than" in capsys.readouterr().err


@needs_nncf
def test_int8(run_tool, efficientvit_config, tmp_path, capsys):
    """Layers read what was rounded to int8, and the outputs are near torch's."""
    torch.manual_seed(0)
    model = build_model(load_config(str(efficientvit_config), {}))
    for parameter in model.parameters():  # new blocks are the identity, which rounds to itself
        std = parameter[0].numel() ** -0.5 if parameter.dim() == 4 else 0.3
        torch.nn.init.normal_(parameter, std=std)
    torch.save(model.state_dict(), tmp_path / "lively.pth")
    out = ["lively.pth", "--out", "m.xml", "--part", "backbone", "--static", "--shape", 64, 64]
    run_tool(RUN[0], efficientvit_config, *out)
    single = (tmp_path / "m.bin").stat().st_size
    run_tool(RUN[0], efficientvit_config, *out, "--int8", "--calibration", 4)
    said = capsys.readouterr().out
    assert "MiB in int8; against torch:" in said and said.count("1 x 64 x 64: largest") == 5
    error = float(said.split("largest difference ")[-1].split()[0])
    assert 1e-6 < error < 0.5
    assert (tmp_path / "m.bin").stat().st_size < 0.5 * single
    assert (tmp_path / "m.xml").read_text().count("FakeQuantize") > 10


@needs_nncf
def test_int8_images_of_another_size(run_tool, efficientvit_config, capsys):
    with pytest.raises(SystemExit) as refused:
        run_tool(RUN[0], efficientvit_config, *RUN[1:], "--static", "--int8", "--part", "backbone")
    assert refused.value.code == 2
    sentence = "fixed to 1 x 64 x 96 and an image of the training set is 1 x 64 x 64; set --shape"
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--out", "nowhere/m.xml"], "--out nowhere/m.xml: the folder does not exist"),
        (["--out", "m.onnx"], "--out m.onnx: give a name that ends in .xml"),
        (["--shape", "0", "64"], "--shape 0 64: give at least one pixel"),
        (["--calibration", "0"], "--calibration 0: give at least one image"),
    ],
)
def test_mistakes(run_tool, efficientvit_config, capsys, options, sentence):
    with pytest.raises(SystemExit) as refused:
        run_tool(RUN[0], efficientvit_config, *options)
    assert refused.value.code == 2
    assert sentence in capsys.readouterr().err


def test_missing_package(run_tool, efficientvit_config, capsys, monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "nncf" else builtins)
    with pytest.raises(SystemExit):
        run_tool(RUN[0], efficientvit_config, "--int8")
    assert capsys.readouterr().err.startswith(
        "error: nncf is not installed: pip install 'mmvitaccel[deploy]'"
    )


# Frees two networks in the order in which they were made; a child that ends is then a signal.
HANDLES_A_SIGNAL = """
import gc, signal, subprocess, sys
from mmvitaccel.deploy.openvino_export import open_openvino
one, other = open_openvino(sys.argv[1]), open_openvino(sys.argv[1])
del one
gc.collect()
del other
gc.collect()
signal.signal(signal.SIGCHLD, lambda *given: print("handled"))
subprocess.run([sys.executable, "-c", ""], check=True)
"""


@needs_openvino
def test_signals_are_handled_after_networks_are_freed(run_tool, efficientvit_config, tmp_path):
    run_tool(
        RUN[0], efficientvit_config, "--out", "m.xml", *RUN[1:], "--part", "backbone", "--static"
    )
    command = [sys.executable, "-c", HANDLES_A_SIGNAL, str(tmp_path / "m.xml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "handled"
