"""The study of accuracy against multiply-adds, at a size at which nothing is learned."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import cv2
import pytest

from mmvitaccel.datasets.motion_clips import MotionSetSettings, make_motion_set

pytest.importorskip("mmaction", reason="its configs are of mmaction2, which is not installed")

TOOL = Path(__file__).parents[2] / "tools/analysis/vivit_tradeoff.py"
TOKENS, DIM, STEPS, DEPTH = 65, 16, 8, 2


def run(*arguments: object) -> None:
    spec = importlib.util.spec_from_file_location(TOOL.stem, TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The command's arguments and its work directory, after a run."""
    root = tmp_path_factory.mktemp("study")
    clips = make_motion_set(root / "clips", MotionSetSettings(num_train=7, num_val=7))
    options = [f"model.backbone.embed_dim={DIM}", f"model.backbone.spatial_depth={DEPTH}"]
    options += [f"model.cls_head.in_channels={DIM}", "train_cfg.max_epochs=1"]
    for split in ("train", "val", "test"):
        loader = f"{split}_dataloader"
        options += [f"{loader}.num_workers=0", f"{loader}.persistent_workers=False"]
        options += [f"{loader}.dataset.data_root={clips}"]
    work = root / "work"
    arguments = [
        "--work-dir",
        work,
        "--k",
        8,
        "--r",
        4,
        "--rlt",
        0.5,
        "--attention",
        "exact",
        "delta",
    ]
    arguments += ["--cfg-options", *options]
    run(*arguments)
    return arguments, work


def block_macs(tokens: int) -> int:
    return 12 * tokens * DIM**2 + 2 * tokens**2 * DIM


def test_points(study):
    points = {p["method"]: p for p in json.loads((study[1] / "tradeoff.json").read_text())}
    assert list(points) == [
        "dense",
        "exact",
        "exact, tuned",
        "delta",
        "delta, tuned",
        "ToMe",
        "RLT",
    ]
    rest = 2 * block_macs(STEPS + 1) + 7 * DIM  # temporal encoder and head
    dense = DEPTH * STEPS * block_macs(TOKENS)
    assert points["dense"]["gmacs"] * 1e9 == pytest.approx(dense + rest)
    steady = DEPTH * (12 * 8 * DIM**2 + 4 * 8 * TOKENS * DIM)
    delta = DEPTH * block_macs(TOKENS) + (STEPS - 1) * steady
    assert points["delta"]["gmacs"] * 1e9 == pytest.approx(delta + rest)
    assert points["delta, tuned"]["gmacs"] == points["delta"]["gmacs"]
    assert points["delta"]["gmacs"] < points["exact"]["gmacs"] < points["dense"]["gmacs"]
    assert points["ToMe"]["gmacs"] < points["dense"]["gmacs"]
    assert points["RLT"]["gmacs"] < points["dense"]["gmacs"]
    embedding = STEPS * (TOKENS - 1) * DIM * 3 * 2 * 8 * 8
    assert all(p["embedding_gmacs"] * 1e9 == pytest.approx(embedding) for p in points.values())
    assert all(0 <= p["top1"] <= 100 for p in points.values())
    assert [points[m]["budget"] for m in ("dense", "exact", "ToMe", "RLT")] == [None, 8, 4, 0.5]


def test_table_and_plot(study):
    lines = (study[1] / "tradeoff.md").read_text().splitlines()
    assert len(lines) == 2 + 7 + 1
    assert lines[2].startswith("| dense |  | ") and lines[2].endswith("| 1.00x |")
    assert lines[-1].startswith("| tubelet embedding, in all of them besides |")
    assert cv2.imread(str(study[1] / "tradeoff.png")).std() > 5


def test_second_run_does_nothing_again(study, capsys):
    arguments, work = study
    before = {p: p.stat().st_mtime_ns for p in work.rglob("*.pth")}
    before |= {p: p.stat().st_mtime_ns for p in work.rglob("*.npy")}
    # Three trainings (the last and the best), two copies of weights, features.
    assert len(before) == 3 * 2 + 2 + 2 * 14
    run(*arguments)
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert "exact, tuned 8: top-1" in capsys.readouterr().out


def test_results_of_other_configs_are_not_taken(study, capsys):
    with pytest.raises(SystemExit):
        run(*study[0], "train_cfg.max_epochs=2")
    assert "has results of other configs (see its configs.txt)" in capsys.readouterr().err
