"""The tool on detectors of pictures and videos, and on a recognizer, with random weights."""

from __future__ import annotations

import csv
import json

import pytest

from mmvitaccel.analysis.sweep import sweep as sweeping
from mmvitaccel.analysis.sweep.evaluate import evaluate
from mmvitaccel.runner.config import load_config

VIDEO_POINTS = ["--k", 6, 3, "--eventful-policy", "TopK", "RandomTokens"]


def rows(path):
    return {row["name"]: row for row in csv.DictReader((path / "sweep.csv").open())}


@pytest.fixture
def tested(monkeypatch):
    """The folders of the tests that ran."""
    ran = []

    def note(cfg, checkpoint, work_dir, *args, **kwargs):
        ran.append(work_dir.name)
        return evaluate(cfg, checkpoint, work_dir, *args, **kwargs)

    monkeypatch.setattr(sweeping, "evaluate", note)
    return ran


def test_videos(run_tool, video_config, weights_of, tmp_path, capsys, tested):
    weights = weights_of(video_config)
    run_tool("analysis/sweep", video_config, weights, *VIDEO_POINTS, "--out", "a")
    said = capsys.readouterr().out
    found = rows(tmp_path / "a")
    assert list(found) == [
        "dense", "exact TopK k=6", "exact TopK k=3", "exact RandomTokens k=6",
        "exact RandomTokens k=3",
    ]  # fmt: skip
    macs = {name: float(row["cost/gmacs"]) for name, row in found.items()}
    assert macs["exact TopK k=3"] < macs["exact TopK k=6"] < macs["dense"]
    assert macs["exact RandomTokens k=3"] == pytest.approx(macs["exact TopK k=3"], rel=0.05)
    assert all(float(row["cost/ms"]) > 0 and "vid/mAP50" in row for row in found.values())
    assert (tmp_path / "a" / "sweep.png").is_file()

    # what is printed to be pasted gives these figures
    best = json.loads((tmp_path / "a" / "sweep.json").read_text())["recommended"]["cost/gmacs"]
    assert best == "exact TopK k=3"
    lines = said.split(f"{best}, in a config that inherits from this one:\n\n")[1]
    pasted = tmp_path / "pasted.py"
    pasted.write_text(f"_base_ = ['{video_config}']\n" + lines.split("\n\nor on")[0])
    cfg = sweeping.with_costs(load_config(str(pasted), {}))
    figures = evaluate(cfg, weights, tmp_path / "pasted")
    assert figures["cost/backbone_first_gmacs"] == float(found[best]["cost/backbone_first_gmacs"])
    assert figures["cost/tokens"]["blocks.0.qkv"] == 3
    assert figures["vid/mAP50"] == float(found[best]["vid/mAP50"])

    # a second run tests further points alone, and draws another sweep beside
    tested.clear()
    run_tool("analysis/sweep", video_config, weights, "--k", 6, 2, "--out", "a", "--overlay", "a")
    assert tested == ["exact_TopK_k2"]
    assert list(rows(tmp_path / "a")) == [*found, "exact TopK k=2"]


def test_an_interrupted_sweep_goes_on(
    run_tool, vitdet_config, weights_of, tmp_path, capsys, tested, monkeypatch
):
    weights = weights_of(vitdet_config)
    noting = sweeping.evaluate

    def broken(cfg, checkpoint, work_dir, *args, **kwargs):
        if work_dir.name == "ToMe_r5":
            raise KeyboardInterrupt
        return noting(cfg, checkpoint, work_dir, *args, **kwargs)

    monkeypatch.setattr(sweeping, "evaluate", broken)
    command = ["analysis/sweep", vitdet_config, weights, "--r", 3, 5, "--out", "b"]
    with pytest.raises(SystemExit) as stopped:
        run_tool(*command)
    assert stopped.value.code == 2 and tested == ["dense", "ToMe_r3"]
    assert not (tmp_path / "b" / "sweep.csv").exists()
    monkeypatch.setattr(sweeping, "evaluate", noting)
    run_tool(*command)
    assert tested == ["dense", "ToMe_r3", "ToMe_r5"]
    found = rows(tmp_path / "b")
    macs = [float(found[name]["cost/gmacs"]) for name in ("dense", "ToMe r=3", "ToMe r=5")]
    assert len(set(macs)) == 3 and macs[2] < macs[1]  # matching costs more than so few save
    assert "coco/bbox_mAP" in found["ToMe r=5"]

    for given, what in [
        ([vitdet_config, weights_of(vitdet_config, seed=1)], "its checkpoint is"),
        ([vitdet_config, weights, "--deploy"], "its deploy is"),
        (
            [vitdet_config, weights, "--cfg-options", "model.test_cfg.score_thr=0.1"],
            "its config is",
        ),
    ]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as refused:
            run_tool("analysis/sweep", *given, "--r", 7, "--out", "b")
        assert refused.value.code == 2
        error = capsys.readouterr().err
        assert what in error and error.count("\n") == 1
        assert len(tested) == 3


def test_a_recognizer(run_tool, recognizer_config, weights_of, tmp_path, capsys):
    run_tool("analysis/sweep", recognizer_config, weights_of(recognizer_config), "--r", 2)
    found = rows(tmp_path / "work_dirs" / "recognizer_sweep")
    assert list(found) == ["dense", "ToMe r=2"]
    assert 0 <= float(found["ToMe r=2"]["acc/top1"]) <= 1
    assert float(found["ToMe r=2"]["cost/gmacs"]) != float(found["dense"]["cost/gmacs"])
    assert "| point | acc/top1 |" in capsys.readouterr().out


def test_run_length_tokenization(run_tool, recognizer_config, weights_of, tmp_path, tested):
    with recognizer_config.open("a") as file:
        file.write(
            "model['backbone'] = dict(type='mmvitaccel.ViViT', img_size=32, num_frames=4,\n"
            "    tubelet_size=(1, 8, 8), embed_dim=16, spatial_depth=2, temporal_depth=1,\n"
            "    num_heads=2)\n"
        )
    command = ["analysis/sweep", recognizer_config, weights_of(recognizer_config), "--out", "c"]
    run_tool(*command, "--rlt", 0.1)
    found = rows(tmp_path / "c")
    assert list(found) == ["dense", "RLT threshold=0.1"]
    # the four frames of a clip are the same; what remains is the tubelet embedding and one of four
    macs = {name: float(row["cost/gmacs"]) for name, row in found.items()}
    assert macs["RLT threshold=0.1"] < 0.6 * macs["dense"]
    assert [row["threshold"] for row in found.values()] == ["", "0.1"]
    tested.clear()
    run_tool(*command, "--rlt", 0.1, 0.05)
    assert tested == ["RLT_threshold0_05"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--loss", 1.5, "--k", 4], "--loss 1.5: give a share of 1"),
        (["--k", 4, "--overlay", "nothing"], "nothing holds no sweep (it has no settings.json)"),
        (["--k", 4, "--out", "full"], "full is not empty and holds no sweep"),
        (["--k", 4, "--parts", "tail"], "exact TopK k=4: "),
        (["--rlt", 0.1], "RLT threshold=0.1: "),
        (
            ["--k", 4, "--cfg-options", "default_hooks.tome.type=mmvitaccel.ToMeHook"],
            "already has a method in its hooks; give the dense config",
        ),
    ],
)
def test_mistakes(run_tool, vitdet_config, weights_of, tmp_path, capsys, options, sentence):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    with pytest.raises(SystemExit) as refused:
        run_tool("analysis/sweep", vitdet_config, weights_of(vitdet_config), *options)
    assert refused.value.code == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "work_dirs").exists()
