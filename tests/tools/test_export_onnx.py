from __future__ import annotations

import pytest
import torch

from mmvitaccel import extras
from mmvitaccel.deploy import onnx_export
from mmvitaccel.runner.config import load_config
from mmvitaccel.runner.session import build_model

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
@pytest.mark.parametrize("channels", [1, 4])
def test_images_of_other_channels(run_tool, efficientvit_config, tmp_path, capsys, channels):
    import onnx

    options = [f"model.data_preprocessor.{key}=[1.0]" for key in ("mean", "std")]
    options += [f"model.backbone.in_channels={channels}"]
    run = ["deploy/export_onnx", efficientvit_config, "--out", "m.onnx", "--shape", 64, 96]
    run_tool(*run, "--part", "backbone", "--static", "--cfg-options", *options)
    assert "1 x 64 x 96: largest difference" in capsys.readouterr().out
    (images,) = onnx.load(str(tmp_path / "m.onnx")).graph.input
    assert [d.dim_value for d in images.type.tensor_type.shape.dim] == [1, channels, 64, 96]


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
@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        (
            "model.bbox_head.anchor_generator.strides=[16,32,64,128,256]",
            "have the strides [8, 16, 32, 64, 128], but model.bbox_head.anchor_generator.strides",
        ),
        (
            "model.bbox_head.num_classes=4",
            "model.bbox_head.num_classes is 4, but train_dataloader.dataset has 2 classes",
        ),
    ],
)
def test_what_does_not_fit_is_not_exported(
    run_tool, efficientvit_config, tmp_path, capsys, option, sentence
):
    with pytest.raises(SystemExit) as caught:
        run_tool("deploy/export_onnx", efficientvit_config, "--out", "m.onnx", "--shape", 64, 64,
                 "--cfg-options", option)  # fmt: skip
    assert caught.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert sentence in error
    assert not (tmp_path / "m.onnx").exists()


@needs_onnx
def test_a_checkpoint_of_another_order_is_not_exported(
    run_tool, efficientvit_config, tmp_path, capsys
):
    weights = build_model(load_config(str(efficientvit_config), {})).state_dict()
    meta = dict(dataset_meta=dict(classes=("dark", "bright")))
    torch.save(dict(state_dict=weights, meta=meta), tmp_path / "a.pth")
    with pytest.raises(SystemExit):
        run_tool("deploy/export_onnx", efficientvit_config, "a.pth", "--shape", 64, 64)
    assert "class 0 is 'dark' in checkpoint a.pth's dataset_meta" in capsys.readouterr().err


@needs_onnx
def test_a_file_that_differs_is_refused(run_tool, efficientvit_config, capsys, monkeypatch):
    run = onnx_export.run_session
    monkeypatch.setattr(onnx_export, "run_session", lambda s, x: [out + 1 for out in run(s, x)])
    with pytest.raises(SystemExit):
        run_tool("deploy/export_onnx", efficientvit_config, "--part", "backbone", "--shape", 64, 64)
    assert "differs from torch by more than" in capsys.readouterr().err


def test_missing_package(run_tool, efficientvit_config, capsys, monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        run_tool("deploy/export_onnx", efficientvit_config)
    assert capsys.readouterr().err.startswith(
        "error: onnx and onnxruntime are not installed: pip install 'mmvitaccel[deploy]'"
    )


TOME = ["default_hooks.tome.type=mmvitaccel.ToMeHook", "default_hooks.tome.r=5"]
EVENTFUL = [
    "default_hooks.eventful.type=mmvitaccel.EventfulHook",
    "default_hooks.eventful.policy.type=TopK",
    "default_hooks.eventful.policy.k=6",
]


@pytest.fixture
def vitdet_config(efficientvit_config):
    """The detector with a small ViTDet in place of its backbone, for one size."""
    path = efficientvit_config.with_name("vitdet.py")
    path.write_text(
        f"_base_ = ['{efficientvit_config}']\n"
        "model = dict(backbone=dict(_delete_=True, type='mmvitaccel.ViTDet', img_size=64,"
        " patch_size=8, embed_dim=24, depth=3, num_heads=3, window_size=3,"
        " window_block_indexes=(0, 2), pretrain_img_size=32))\n"
    )
    return path


@needs_onnx
@pytest.mark.parametrize("merging", [False, True])
def test_hooks_are_in_the_file(run_tool, vitdet_config, tmp_path, capsys, merging):
    """Half as many tokens pass the last block's layers; the tool compares the file with torch."""
    import onnx

    options = ["--cfg-options", *TOME] if merging else []
    run_tool(
        "deploy/export_onnx", vitdet_config, "--part", "backbone", "--out", "m.onnx",
        "--shape", 64, 64, "--static", *options,
    )  # fmt: skip
    error = float(capsys.readouterr().out.split("largest difference ")[1].split()[0])
    assert error <= 1e-4
    graph = onnx.load(str(tmp_path / "m.onnx")).graph
    assert merging == any(node.op_type == "TopK" for node in graph.node)


@needs_onnx
@pytest.mark.parametrize(
    ("hook", "options", "sentence"),
    [
        (TOME, [], "ToMe: how many tokens each block merges belongs to one size of image"),
        (EVENTFUL, ["--static"], "Eventful cannot be exported: its computation depends on"),
    ],
)
def test_hooks_that_a_file_cannot_hold(run_tool, vitdet_config, capsys, hook, options, sentence):
    with pytest.raises(SystemExit):
        run_tool(
            "deploy/export_onnx", vitdet_config, "--part", "backbone", "--shape", 64, 64,
            *options, "--cfg-options", *hook,
        )  # fmt: skip
    assert sentence in capsys.readouterr().err
