from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mmvitaccel.analysis.flops import count_config
from mmvitaccel.runner.config import load_config

ROOT = Path(__file__).parents[2]


def test_table(run_tool, detector_config, capsys, tmp_path):
    run_tool("analysis/get_flops", detector_config, "--shape", "96", "64", "--json", "f.json")
    out = capsys.readouterr().out
    figures = json.loads((tmp_path / "f.json").read_text())
    assert figures == count_config(load_config(str(detector_config), {}), (96, 64))
    assert figures["input_shape"] == [3, 96, 64]
    assert "input 3 x 96 x 64" in out
    for name in ("backbone", "neck", "bbox_head"):
        assert f"{figures['modules'][name]['macs']:,}" in out
    assert f"{figures['macs']:,}" in out


def test_json_alone_on_stdout(run_tool, recognizer_config, capsys):
    run_tool("analysis/get_flops", recognizer_config, "--json", "-")
    figures = json.loads(capsys.readouterr().out)
    assert figures["input_shape"] == [3, 4, 32, 32]
    assert figures["flops"] == 2 * figures["macs"] > 0
    parts = figures["modules"].values()
    assert sum(p["macs"] for p in parts) == figures["macs"]
    assert sum(p["params"] for p in parts) == figures["params"]


def test_all_views_and_the_embedding_apart(run_tool, capsys):
    """The published figures of ViViT-B: of 12 views, without the tubelet embedding."""
    pytest.importorskip("mmaction", reason="mmaction2 is not installed")
    config = ROOT / "configs/vivit/vivit-base_32x2x1_kinetics400-rgb.py"
    options = ["model.backbone.spatial_depth=1", "model.backbone.temporal_depth=1"]
    run_tool("analysis/get_flops", config, "--cfg-options", *options)
    lines = capsys.readouterr().out.splitlines()
    tokens, steps, dim = 14 * 14, 16, 768
    embedding = steps * tokens * dim * 3 * 2 * 16 * 16
    rest = sum(b * (12 * n * dim**2 + 2 * n**2 * dim) for b, n in ((steps, tokens + 1), (1, 17)))
    rest += 400 * dim  # the head
    assert (
        f"without patch embedding, as papers count: {rest / 1e9:.3f} G multiply-adds "
        f"(the embedding: {embedding / 1e9:.3f} G)" in lines
    )
    assert f"of 12 views {12 * (rest + embedding) / 1e9:.3f} G multiply-adds" in lines
    assert (
        f"of 12 views without patch embedding: {12 * rest / 1e9:.3f} G multiply-adds "
        f"(the embedding: {12 * embedding / 1e9:.3f} G)" in lines
    )


@pytest.mark.parametrize("channels", [1, 4])
def test_images_of_other_channels(run_tool, efficientvit_config, capsys, channels):
    run = ["analysis/get_flops", efficientvit_config, "--shape", "64", "--json", "-"]
    run_tool(*run)
    colour = json.loads(capsys.readouterr().out)
    # mmengine takes statistics of one channel or three; one is for all
    options = [f"model.data_preprocessor.{key}=[1.0]" for key in ("mean", "std")]
    run_tool(*run, "--cfg-options", f"model.backbone.in_channels={channels}", *options)
    figures = json.loads(capsys.readouterr().out)
    assert figures["input_shape"] == [channels, 64, 64]
    # the first of the stem's convolutions: 3 x 3 to 16 / 8 channels at half the size
    width = 16 // 8
    assert figures["params"] - colour["params"] == (channels - 3) * 9 * width
    assert figures["macs"] - colour["macs"] == (channels - 3) * 9 * width * 32 * 32


def test_a_process_writes_json_alone():
    """With a config that logs and warns while it is read and built."""
    config = ROOT / "configs" / "retinanet_efficientvit_m4_coco.py"
    options = ["model.backbone.arch=m0", "model.neck.in_channels=[64,128,192]"]
    command = [sys.executable, ROOT / "tools" / "analysis" / "get_flops.py", config]
    done = subprocess.run(
        [*command, "--shape", "64", "--json", "-", "--cfg-options", *options],
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["input_shape"] == [3, 64, 64]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--shape", "8"], "--shape 8 8: too small"),
        (
            ["--cfg-options", "model.bbox_head.anchor_generator.strides=[8,16]"],
            "have the strides [16, 32], but model.bbox_head.anchor_generator.strides is [8, 16]",
        ),
        (
            ["--cfg-options", "model.bbox_head.num_classes=4"],
            "model.bbox_head.num_classes is 4, but train_dataloader.dataset has 2 classes",
        ),
        (["--shape", "-3", "64"], "--shape -3 64: an image has at least 1 pixel"),
        (["--shape", "64", "64", "64"], "--shape has 3 numbers; give H, or H and W."),
        (["--json", "nowhere/f.json"], "--json nowhere/f.json: the folder does not exist"),
        (["--cfg-options", "model.neck.in_channels=[16,33]"], "in neck.lateral_convs.1.conv"),
        (["--cfg-options", "default_hooks.x.type=NoHook"], "'NoHook' is not in mmdet's hook"),
        (["--cfg-options", "custom_hooks=[dict(type='X',r=8)]"], "default_hooks.NAME.type=X"),
    ],
)
def test_bad_input(run_tool, detector_config, tmp_path, capsys, arguments, sentence):
    before = set(tmp_path.iterdir())
    with pytest.raises(SystemExit) as caught:
        run_tool("analysis/get_flops", detector_config, *arguments)
    assert caught.value.code == 2
    out, error = capsys.readouterr()
    assert (out, error.count("\n"), error[:7]) == ("", 1, "error: ")
    assert sentence in error
    assert set(tmp_path.iterdir()) == before
