"""Command-line tools around ViViT: clips and released weights."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


def run(name: str, *arguments: object) -> None:
    spec = importlib.util.spec_from_file_location(Path(name).stem, ROOT / "tools" / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main([str(argument) for argument in arguments])


def test_clips(tmp_path, capsys):
    make = "dataset_converters/make_motion_clips.py"
    size = ("--num-train", 2, "--num-val", 1, "--num-frames", 4, "--img-size", 16, 24)
    run(make, tmp_path / "set", *size)
    assert "train clips: 2/2" in capsys.readouterr().out
    assert (tmp_path / "set" / "train.txt").read_text().splitlines()[1] == "train/00001.mp4 1"
    with pytest.raises(SystemExit):
        run(make, tmp_path / "set", "--num-train", 3)
    assert "holds a set made with other settings" in capsys.readouterr().err


def test_released_weights(tmp_path, capsys):
    convert = "model_converters/vivit.py"
    weights = {
        "backbone.stem.conv1.weight": torch.randn(4, 3, 2, 2, 2),
        "backbone.layers.0.attn.to_qkv.weight": torch.randn(12, 4),
        "head.linear.bias": torch.randn(7),
    }
    torch.save({"model_state": weights, "epoch": 3}, tmp_path / "released.pyth")
    run(convert, tmp_path / "released.pyth", tmp_path / "new" / "vivit.pth")
    found = torch.load(tmp_path / "new" / "vivit.pth", weights_only=True)["state_dict"]
    names = {
        "backbone.patch_embed.weight": "backbone.stem.conv1.weight",
        "backbone.spatial.blocks.0.attn.qkv.weight": "backbone.layers.0.attn.to_qkv.weight",
        "cls_head.fc_cls.bias": "head.linear.bias",
    }
    assert found.keys() == names.keys()
    assert all(torch.equal(found[new], weights[old]) for new, old in names.items())
    assert "3 tensors are in" in capsys.readouterr().out


def test_weights_of_something_else(tmp_path, capsys):
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pth")
    for source, message in (
        ("other.pth", "neither TAdaConv's factorised ViViT"),
        ("gone.pth", "gone.pth"),
    ):
        with pytest.raises(SystemExit):
            run("model_converters/vivit.py", tmp_path / source, tmp_path / "out.pth")
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out.pth").exists()
