"""The demonstration on videos at a tiny size: every stage, what is kept, and the exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from mmvitaccel.demo import video_detector
from mmvitaccel.demo.video_detector import Demo, Figures, figures_table, verdict
from mmvitaccel.errors import UserError
from mmvitaccel.runner.config import load_config
from mmvitaccel.runner.session import build_model
from mmvitaccel.video_reader import open_video

CONFIGS = Path(__file__).parents[2] / "configs" / "demo"
WAYS = ["dense", "eventful", "random tokens"]
needs_video = pytest.mark.extras("video", "av", "supervision")

SMALL = """
generated = dict(images=dict(num_train=4, img_size=(48, 48)))
data_root = '{root}/data_48/'
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False,
                        dataset=dict(data_root=data_root))
train_cfg = dict(max_epochs=2)
param_scheduler = []
model = dict(backbone=dict(img_size=64, embed_dim=48))
model['neck'] = dict(in_channels=48)
"""
DENSE = """
generated = dict(images=dict(num_train=2, img_size=(64, 64)),
                 videos=dict(num_val=2, num_frames=4, img_size=(64, 64)))
data_root = '{root}/data_64/'
loader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root=data_root))
train_dataloader = dict(batch_size=2, **loader)
val_dataloader = loader
test_dataloader = loader
ann_file = data_root + 'videos/annotations/vid_val.json'
val_evaluator = dict(ann_file=ann_file)
test_evaluator = [dict(type='mmvitaccel.VIDMetric', ann_file=ann_file),
                  dict(type='mmvitaccel.MacsMetric')]
train_cfg = dict(max_epochs=1)
param_scheduler = []
model = dict(backbone=dict(img_size=64, embed_dim=48))
model['neck'] = dict(in_channels=48)
img_size = 64
"""
EVENTFUL = """
model = dict(backbone=dict(_delete_=True, type='mmvitaccel.Eventful',
                           policy=dict(type='TopK', k=12), attention='exact',
                           backbone={{_base_.model.backbone}}))
"""


@pytest.fixture
def configs(tmp_path):
    """The demonstration's configs on few and small pictures."""
    parts = {"small": ("160", SMALL), "dense": ("320", DENSE)}
    for name, (size, text) in parts.items():
        base = CONFIGS / f"faster-rcnn_vitdet-small_vid-{size}.py"
        text = text.replace("{root}", str(tmp_path))
        (tmp_path / f"{name}.py").write_text(f"_base_ = {str(base)!r}\n{text}")
    dense = str(tmp_path / "dense.py")
    (tmp_path / "eventful.py").write_text(f"_base_ = {dense!r}\n{EVENTFUL}")
    return tuple(tmp_path / f"{name}.py" for name in ("small", "dense", "eventful"))


@needs_video
def test_every_stage_and_a_second_run_that_repeats_none(configs, tmp_path, capsys, monkeypatch):
    work = tmp_path / "work"
    figures = Demo(configs, work).run()
    assert [row.way for row in figures] == WAYS
    assert all(row.milliseconds > 0 for row in figures)
    dense, eventful, random = (row.gmacs for row in figures)
    assert eventful < dense
    # Of exact attention a frame may recompute a row more
    assert random == pytest.approx(eventful, rel=0.1)
    with open_video(work / "side_by_side.mp4") as written:
        shapes = {frame.image.shape for frame in written}
        assert written.given == 8 and written.fps == video_detector.FPS
    assert {shape[1] for shape in shapes} == {2 * 512}
    kept = json.loads((work / "results.json").read_text())
    assert [Figures(**row) for row in kept] == figures
    printed = capsys.readouterr().out
    for stage in range(1, video_detector.STAGES + 1):
        assert f"[{stage}/{video_detector.STAGES}]" in printed
    assert "eventful, frames: 8/8" in printed and "side_by_side.mp4" in printed

    def refused(*_, **__):
        raise AssertionError("done again")

    monkeypatch.setattr("mmvitaccel.analysis.tradeoff.run", refused)
    monkeypatch.setattr("mmvitaccel.datasets.synthetic.video.draw_video", refused)
    again = Demo(configs, work).run()
    assert [(row.map50, row.gmacs) for row in again] == [(row.map50, row.gmacs) for row in figures]


def test_an_interrupted_training_goes_on(configs, tmp_path, monkeypatch):
    demo = Demo(configs, tmp_path / "work")
    video_detector.draw_generated(demo.small, demo._progress)
    step = video_detector.train

    def stopped(cfg, folder):
        cfg.train_cfg.max_epochs = 1  # as killed after the first epoch
        return step(cfg, folder)

    monkeypatch.setattr(video_detector, "train", stopped)
    first = demo.train(load_config(str(configs[0]), {}), "part")
    assert first.name == "epoch_1.pth"
    monkeypatch.setattr(video_detector, "train", step)
    last = demo.train(load_config(str(configs[0]), {}), "part")
    assert last.name == "epoch_2.pth" and last.is_file()
    logs = "".join(path.read_text() for path in (tmp_path / "work").rglob("*.log"))
    assert "Epoch(train) [2]" in logs
    assert logs.count("Epoch(train) [1][2/2]") <= 1


def test_a_folder_of_another_training_is_named(configs, tmp_path):
    demo = Demo(configs, tmp_path / "work")
    folder = tmp_path / "work" / "train_160"
    folder.mkdir(parents=True)
    (folder / "config.sha256").write_text("another")
    with pytest.raises(UserError, match=r"train_160 contains a training of another config"):
        demo.train(demo.small, "train_160")


def test_shipped_configs_fit_each_other():
    names = ("160", "320", "320_top200")
    small, dense, eventful = (
        load_config(str(CONFIGS / f"faster-rcnn_vitdet-small_vid-{name}.py"), {}) for name in names
    )
    shapes = [
        {name: value.shape for name, value in build_model(cfg).state_dict().items()}
        for cfg in (small, dense, eventful)
    ]
    assert shapes[0] == shapes[1] == shapes[2]
    # objects have the same size in pixels in both parts of the training
    sizes = [
        [share * cfg.generated.images.img_size[0] for share in cfg.generated.images.object_size]
        for cfg in (small, dense)
    ]
    assert sizes[0] == pytest.approx(sizes[1])


def test_verdict_and_table():
    rows = [Figures("dense", 61.0, 80.4, 6.66), Figures("eventful", 60.0, 44.2, 2.1)]
    rows.append(Figures("random tokens", 20.0, 44.0, 2.1))
    assert verdict(rows, 50) is None
    assert "mAP50 is 60.00 % eventful on the held-out videos and should be at least 60.5 %" in (
        verdict(rows, 60.5)
    )
    assert verdict([Figures("dense", float("nan"), 1.0, 1.0)], 50) is not None
    console = Console(width=100, record=True)
    console.print(figures_table(rows, 320))
    text = console.export_text()
    assert "320 x 320" in text
    for row in rows:
        assert row.way in text and f"{row.milliseconds:.1f}" in text


def test_missing_packages_are_named(run_tool, monkeypatch, capsys):
    monkeypatch.setattr("mmvitaccel.extras.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="2"):
        run_tool("demo_video")
    assert "pip install 'mmvitaccel[video]'" in capsys.readouterr().err


@needs_video
def test_exit_status_1_where_nothing_was_learned(run_tool, monkeypatch, capsys):
    rows = [Figures("dense", 1.0, 80.4, 6.66)]
    monkeypatch.setattr(Demo, "run", lambda self: rows)
    with pytest.raises(SystemExit, match="1"):
        run_tool("demo_video")
    assert "The detector did not learn: mAP50 is 1.00 % dense" in capsys.readouterr().err
