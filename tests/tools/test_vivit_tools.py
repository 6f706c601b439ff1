"""The command-line tool that draws clips for ViViT."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

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


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ("recognizer_config", "has no train_dataloader.dataset.data_root"),
        ("detector_config", "has the backbone ResNet, which has no spatial encoder"),
    ],
)
def test_a_study_of_another_model_is_refused_before_it_trains(
    run_tool, request, capsys, tmp_path, config, sentence
):
    path, work_dir = request.getfixturevalue(config), tmp_path / "study"
    with pytest.raises(SystemExit) as exit_:
        run_tool("analysis/vivit_tradeoff", "--config", path, "--work-dir", work_dir)
    assert exit_.value.code == 2
    assert sentence in capsys.readouterr().err
    assert not work_dir.exists()
