from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mmvitaccel.analysis.sweep.evaluate import evaluate, with_costs
from mmvitaccel.analysis.tradeoff import METHODS, Point, measure, save, table
from mmvitaccel.errors import UserError
from mmvitaccel.models.weights.wrapped import Choice
from mmvitaccel.runner.config import load_config
from mmvitaccel.runner.session import build_model


def points() -> list[Point]:
    measured = [Point("dense", None, 82.93, 467.44, 500.0, 1.0)]
    for method in METHODS:
        measured += [Point(method, k, 80 - k / 100, k / 2.0, k, 467.44 * 2 / k) for k in (512, 256)]
    return measured


def test_table_has_a_row_for_each_point():
    lines = table(points()).splitlines()
    assert len(lines) == 2 + 1 + 2 * len(METHODS)
    assert lines[2] == "| dense | - | 82.93 | - | - | - | 467.4400 | 500.0000 | 1.00x |"
    assert lines[3].startswith("| token-wise | 512 | 74.88 | - | - | - | 256.0000 |")
    assert {line.count("|") for line in lines} == {10}
    moving = Point("all-parts", 64, 80.0, 1.0, 2.0, 3.0, 90.0, 80.0, 70.0)
    assert "| 80.00 | 90.00 | 80.00 | 70.00 | 1.0000 |" in table([moving])


def test_files_hold_what_was_measured(tmp_path):
    files = save(points(), tmp_path / "new")
    assert [file.name for file in files] == ["tradeoff.json", "tradeoff.md", "tradeoff.png"]
    stored = json.loads(files[0].read_text())
    assert [Point(**values) for values in stored] == points()
    assert files[1].read_text() == table(points()) + "\n"
    assert files[2].read_bytes().startswith(b"\x89PNG")


def test_the_weights_that_are_meant_are_tested_and_broken_pictures_are_passed_over(
    detector_config, tmp_path
):
    cfg = load_config(str(detector_config), {})
    weights, path = build_model(cfg).state_dict(), tmp_path / "both.pth"
    torch.save(dict(ema_state_dict=weights, raw=weights), path)
    with pytest.raises(UserError, match="select one with --weights"):
        evaluate(cfg, path, tmp_path / "a")
    broken = next(Path(cfg.test_dataloader.dataset.data_root).rglob("*.png"))
    broken.write_bytes(broken.read_bytes()[:60])
    choice = Choice("ema_state_dict")
    with pytest.raises(UserError, match=broken.name):
        evaluate(cfg, path, tmp_path / "b", choice)
    figures = evaluate(cfg, path, tmp_path / "c", choice, skip_broken=True)
    assert "coco/bbox_mAP" in figures


def test_a_config_without_its_evaluators_is_a_sentence(detector_config, tmp_path):
    cfg = load_config(str(detector_config), {})
    path = tmp_path / "a.pth"
    torch.save(build_model(cfg).state_dict(), path)
    sentence = r"no vid/mAP50 and no cost/backbone_gmacs .*; put mmvitaccel.VIDMetric and mmvita"
    with pytest.raises(UserError, match=sentence):
        measure(cfg, path, [], [], tmp_path / "tests", print)


def test_a_choice_of_weights_needs_a_checkpoint(run_tool, capsys):
    with pytest.raises(SystemExit) as exit_:
        run_tool("analysis/eventful_tradeoff", "--weights", "ema_state_dict")
    assert exit_.value.code == 2
    assert "--weights and --prefix select weights in a --checkpoint" in capsys.readouterr().err


def test_all_parts_are_measured_beside_the_backbone_alone(video_config, weights_of, tmp_path):
    cfg = with_costs(load_config(str(video_config), {}))
    cfg.test_evaluator[0].by_motion = True
    weights = weights_of(video_config)
    told, methods = [], ["exact", "all-parts", "all-parts-k"]
    found = measure(cfg, weights, methods, [6], tmp_path / "tests", told.append)
    dense, exact, whole, whole_k = found
    assert told == found and [point.method for point in found] == ["dense", *methods]
    backbones = [point.backbone_gmacs for point in found]
    assert backbones[0] > backbones[1] == backbones[2] == backbones[3]
    assert whole_k.gmacs <= whole.gmacs < exact.gmacs < dense.gmacs
    speeds = [(p.map50_slow, p.map50_medium, p.map50_fast) for p in found]
    assert all(any(speed is not None for speed in of_point) for of_point in speeds)
