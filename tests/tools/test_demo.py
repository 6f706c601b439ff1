"""The demonstration at a tiny size: every stage, the table, the picture and the exit status."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from rich.console import Console

from mmvitaccel.analysis.timing import alternate
from mmvitaccel.datasets.synthetic import CLASSES, ImageSetSettings
from mmvitaccel.demo import image_detector as demo
from mmvitaccel.demo.image_detector import Demo, Figures, figures_table, verdict
from mmvitaccel.errors import UserError
from mmvitaccel.pictures.detections import draw_comparison

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / "tools"
CONFIG = ROOT / "configs" / "demo" / "retinanet_efficientvit_synthetic.py"


def load_tool(name: str):
    spec = importlib.util.spec_from_file_location(Path(name).stem, TOOLS / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tiny_config(tmp_path):
    """The demonstration's config, on a few images of its own and for two iterations."""
    data = tmp_path / "data"
    path = tmp_path / "tiny.py"
    dataset = f"dataset=dict(data_root={str(data)!r})"
    loader = f"dict(batch_size=4, num_workers=0, persistent_workers=False, {dataset})"
    evaluator = f"dict(ann_file={str(data / 'annotations' / 'instances_val.json')!r})"
    path.write_text(
        f"_base_ = {str(CONFIG)!r}\n"
        f"train_dataloader = {loader}\n"
        f"val_dataloader = {loader}\n"
        f"test_dataloader = {loader}\n"
        f"val_evaluator = {evaluator}\n"
        f"test_evaluator = {evaluator}\n"
        "train_cfg = dict(max_epochs=1, val_interval=1)\n"
        "param_scheduler = []\n"
        "model = dict(test_cfg=dict(score_thr=0.0))\n"
    )
    return path


class InProcess(Demo):
    """Calls the tools' ``main`` instead of starting a process for each."""

    def call(self, tool: str, *arguments: str) -> None:
        self.called = [*getattr(self, "called", []), (tool, arguments)]
        load_tool(tool).main(list(arguments))


def test_every_stage_at_a_tiny_size(tiny_config, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "ROUNDS", 1)
    settings = ImageSetSettings(num_train=8, num_val=4, img_size=(160, 160))
    work_dir = tmp_path / "work"
    run = InProcess(TOOLS, tiny_config, work_dir, settings)
    ap50 = run.run()
    tools = [tool for tool, _ in run.called]
    assert tools == ["train.py", "test.py", "test.py", *["analysis/get_flops.py"] * 2]
    assert "--deploy" in run.called[2][1] and "--deploy" not in run.called[1][1]

    results = json.loads((work_dir / "results.json").read_text())
    trained, deployed = results["trained"], results["deployed"]
    assert ap50 == min(trained["ap50"], deployed["ap50"])
    assert run.rows() == [dict(state=state) | values for state, values in results.items()]
    assert 0 <= ap50 < 0.5
    # folding takes away a scale and a shift per channel and leaves a bias: fewer parameters
    model = demo.build_model(run.cfg)
    assert trained["params"] == sum(p.numel() for p in model.parameters())
    model.backbone.switch_to_deploy()
    assert deployed["params"] == sum(p.numel() for p in model.parameters()) < trained["params"]
    assert deployed["macs"] == trained["macs"] > 10e6
    assert min(trained["images_per_second"], deployed["images_per_second"]) > 0
    assert cv2.imread(str(work_dir / "detections.png")).shape[2] == 3

    out = capsys.readouterr().out
    for stage in range(1, demo.STAGES + 1):
        assert f"[{stage}/{demo.STAGES}]" in out
    assert f"{trained['params']:,}" in out and f"{deployed['params']:,}" in out
    assert "detections.png" in out


def test_failing_tool_is_named(tiny_config, tmp_path, capfd, monkeypatch):
    lines = ["import os, sys", "print(sys.argv[1:], os.environ['OMP_NUM_THREADS'])", "sys.exit(2)"]
    (tmp_path / "train.py").write_text("\n".join(lines))
    run = Demo(tmp_path, tiny_config, tmp_path / "work")
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    with pytest.raises(UserError, match=r"train\.py missing\.py' ended with status 2"):
        run.call("train.py", "missing.py")
    assert "['missing.py'] 5" in capfd.readouterr().out
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(demo.os, "cpu_count", lambda: 4)
    with pytest.raises(UserError, match=r"OMP_NUM_THREADS=3 python"):
        run.call("train.py")
    assert "[] 3" in capfd.readouterr().out


def test_table_shows_the_figures_given():
    rows = {
        "trained": Figures(0.8284, 1_254_766, 84_200_000, 123.4),
        "deployed": Figures(0.8279, 1_244_001, 84_200_000, 156.7),
    }
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(figures_table(rows, 160))
    lines = [line for line in console.export_text().splitlines() if "ed " in line]
    words = [line.replace("│", " ").split() for line in lines[-2:]]
    assert words == [
        ["trained", "0.828", "1,254,766", "84.2", "M", "123"],
        ["deployed", "0.828", "1,244,001", "84.2", "M", "157"],
    ]


def test_verdict_names_the_figure():
    assert verdict(0.5) is None and verdict(0.93) is None
    assert "AP50 is 0.499 on the held-out images and should be at least 0.5" in verdict(0.499)


@pytest.mark.parametrize(("ap50", "status"), [(0.31, 1), (0.82, None)])
def test_exit_status_says_whether_it_learned(ap50, status, monkeypatch, capsys):
    tool = load_tool("demo.py")
    monkeypatch.setattr(tool.Demo, "run", lambda self: ap50)
    if status is None:
        tool.main([])
        assert capsys.readouterr().err == ""
        return
    with pytest.raises(SystemExit) as ended:
        tool.main([])
    assert ended.value.code == status
    assert "AP50 is 0.310" in capsys.readouterr().err


def test_picture_shows_truth_above_and_sure_detections_below(tmp_path):
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    grey = torch.full((3, 80, 80), 128, dtype=torch.uint8)
    box = torch.tensor([[20.0, 30.0, 60.0, 70.0]])
    truth = DetDataSample(gt_instances=InstanceData(bboxes=box, labels=torch.tensor([0])))
    sure, unsure = (
        DetDataSample(
            pred_instances=InstanceData(
                bboxes=box, labels=torch.tensor([3]), scores=torch.tensor([score])
            )
        )
        for score in (0.9, 0.1)
    )
    batch = dict(inputs=[grey, grey], data_samples=[truth, truth])
    draw_comparison(batch, [sure, unsure], CLASSES, tmp_path / "new" / "picture.png")
    picture = cv2.imread(str(tmp_path / "new" / "picture.png")).astype(int)
    height, width = picture.shape[:2]
    blue, red = picture[..., 0] - picture[..., 2] > 100, picture[..., 2] - picture[..., 0] > 100
    quarters = {
        (row, column): (
            slice(row * height // 2, (row + 1) * height // 2),
            slice(column * width // 2, (column + 1) * width // 2),
        )
        for row in (0, 1)
        for column in (0, 1)
    }
    # label 0 is drawn in red, label 3 in blue; the unsure one not at all
    assert red[quarters[0, 0]].sum() > 100 and red[quarters[0, 1]].sum() > 100
    assert blue[quarters[1, 0]].sum() > 100
    assert not blue[quarters[1, 1]].any() and not red[height // 2 :].any()


def test_rounds_alternate_and_warmup_is_dropped():
    order = []
    seconds = alternate(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=3, warmup=1
    )
    assert order == ["b", "a", "a", "b", "b", "a", "a", "b"]
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}
    assert np.min(list(seconds.values())) >= 0
    with pytest.raises(ValueError, match="rounds=0"):
        alternate({"a": order.clear}, rounds=0)


def test_synthetic_tool_writes_sets_and_says_what_is_wrong(tmp_path, capsys):
    tool = load_tool("dataset_converters/make_synthetic_coco.py")
    out = str(tmp_path / "set")
    options = ["--num-train", "2", "--num-val", "1", "--img-size", "48", "64"]
    tool.main(["images", out, *options])
    assert "train images: 2/2" in capsys.readouterr().out
    assert cv2.imread(f"{out}/train/000001.png").shape == (48, 64, 3)
    with pytest.raises(SystemExit) as ended:
        tool.main(["images", out, *options, "--seed", "1"])
    assert ended.value.code == 2
    assert "other settings" in capsys.readouterr().err
    tool.main(["videos", f"{out}-v", *options, "--num-frames", "2", "--backgrounds", "panning"])
    videos = json.loads(Path(f"{out}-v/annotations/vid_train.json").read_text())["videos"]
    assert [v["background"] for v in videos] == ["panning", "panning"]
