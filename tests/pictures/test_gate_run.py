"""Following gates along a video, and the pictures of them."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmvitaccel.adapters.eventful.apply import EventfulHandle
from mmvitaccel.errors import UserError
from mmvitaccel.models.wrappers.eventful import attach_eventful
from mmvitaccel.pictures.frame_pipeline import FramePipeline
from mmvitaccel.pictures.gate_run import GateFrame, GateRun
from mmvitaccel.pictures.gates import draw_gates
from mmvitaccel.runner.session import build_model

TINY = Path(__file__).parents[2] / "configs/eventful/tiny"
EVENTFUL = TINY / "faster-rcnn_vitdet-tiny_vid-128_top64.py"
DENSE = TINY / "faster-rcnn_vitdet-tiny_vid-128_dense.py"


pytestmark = pytest.mark.usefixtures("metafiles_read_once")


@pytest.fixture
def video(tmp_path):
    """Ten frames of 128 x 96 noise in which a square of 16 pixels moves at the right."""
    rng = np.random.default_rng(0)
    still = rng.integers(0, 256, (96, 128, 3), np.uint8)
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (128, 96))
    for i in range(10):
        frame = still.copy()
        frame[8 * i : 8 * i + 16, 96:112] = 255 * (i % 2)
        writer.write(frame)
    writer.release()
    return path


def frames_of(path):
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        success, frame = capture.read()
        if not success:
            return frames
        frames.append(frame)


def test_gates_fire_where_something_moves(video):
    torch.manual_seed(0)  # weights are random
    cfg = Config.fromfile(EVENTFUL)
    cfg.model.backbone.policy.k = 12
    cfg.model.backbone.backbone.update(depth=1, window_block_indexes=(0,))
    run = GateRun(cfg, build_model(cfg))
    frames = list(run.follow(iter(frames_of(video))))
    assert [frame.first for frame in frames] == [True] + [False] * 9
    assert frames[0].error < 1e-5 and all(0 < frame.error < 0.5 for frame in frames[1:])
    assert all(frame.passed == (12.0, 12.0, 12.0) for frame in frames[1:])
    share = sum(frame.share for frame in frames[1:])
    assert share.shape == (12, 16)  # tokens of 8 pixels, without those of the padding
    # by chance these two of 16 columns would have an eighth
    assert share[:, 12:14].sum() > 0.3 * share.sum()


def classifier(image_size):
    """An ImageNet classifier of four blocks with a class token, as mmpretrain has it."""
    backbone = dict(
        type="VisionTransformer",
        arch=dict(embed_dims=24, num_layers=2, num_heads=2, feedforward_channels=48),
        img_size=image_size,
        patch_size=16,
    )
    crop = [dict(type="Resize", scale=image_size[::-1]), dict(type="PackInputs")]
    return Config(
        dict(
            default_scope="mmpretrain",
            model=dict(
                type="ImageClassifier",
                data_preprocessor=dict(num_classes=3, mean=[127.5] * 3, std=[127.5] * 3),
                backbone=backbone,
                head=dict(type="VisionTransformerClsHead", num_classes=3, in_channels=24),
            ),
            test_dataloader=dict(dataset=dict(dataset=dict(pipeline=crop))),
        )
    )


def test_the_class_token_of_a_classifier_is_not_drawn(video):
    pytest.importorskip("mmpretrain")
    torch.manual_seed(0)
    cfg = classifier((96, 128))
    model = build_model(cfg)
    attach_eventful(model, dict(type="TopK", k=5))
    frames = list(GateRun(cfg, model).follow(iter(frames_of(video))))
    assert [frame.share.shape for frame in frames] == [(6, 8)] * 10
    assert {frame.patch for frame in frames} == {16}
    # four or five of the five tokens of each gate are patches, the rest the class token
    passed = [48 * frame.share.mean() for frame in frames[1:]]
    assert all(4 <= count <= 5 for count in passed)
    moving = sum(frame.share for frame in frames[1:])
    assert moving[:, 6].sum() > 0.3 * moving.sum()


def test_a_model_without_eventful_is_refused():
    cfg = Config.fromfile(DENSE)
    with pytest.raises(UserError, match=r"not attached to this FasterRCNN.*config, or --k"):
        GateRun(cfg, build_model(cfg))


def test_what_passed_is_red_and_the_rest_as_it_was():
    image = np.full((40, 60, 3), 100, np.uint8)
    share = np.zeros((4, 6), np.float32)
    share[3, 5] = 1.0
    drawn = draw_gates(GateFrame(image, 0.01, False, (1.0, 1.0, 1.0), 10, share))
    assert drawn.shape == (320, 480, 3)
    assert np.all(drawn[240:, 400:, 2] > 180) and np.all(drawn[240:, 400:, 0] < 100)
    assert np.all(drawn[240:, :400] == 100)
    planes = np.full((3, 400, 600), 100, np.uint8).transpose(1, 2, 0)  # as a tensor's image comes
    large = draw_gates(GateFrame(planes, 0.01, False, (1.0, 1.0, 1.0), 100, share))
    assert large.shape == (400, 600, 3) and np.all(large[300:, 500:, 2] > 180)


def test_the_tool_writes_video_strip_plot_and_figures(run_tool, video, tmp_path, capsys):
    out = tmp_path / "out"
    run_tool("visualize_eventful", video, DENSE, "--k", 20, "--frames", 9, "--out", out)
    assert "8 later frames: error" in capsys.readouterr().out
    rows = json.loads((out / "frames.json").read_text())
    assert [row["frame"] for row in rows] == list(range(9))
    assert rows[1]["passed"] == [20.0, 20.0, 20.0]
    assert len(frames_of(out / "gates.mp4")) == 9
    assert cv2.imread(str(out / "strip.png")).shape == (2 * 360, 4 * 480, 3)
    assert (out / "error.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((EVENTFUL,), "nothing.mp4 does not exist"),
        ((DENSE, "--k", 0), "k=0 must be a whole number"),
        ((DENSE,), "is not attached to this FasterRCNN"),
    ],
)
def test_the_tool_names_what_is_wrong(run_tool, tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit):
        run_tool("visualize_eventful", tmp_path / "nothing.mp4", *arguments)
    assert message in capsys.readouterr().err


def test_the_error_stays_small_along_a_real_clip(real_video):
    cfg = Config.fromfile(EVENTFUL)
    model = build_model(cfg)
    run = GateRun(cfg, model)
    frames = list(run.follow(iter(frames_of(real_video)[:12])))
    errors = [frame.error for frame in frames]
    assert errors[0] < 1e-5 and all(1e-4 < error < 0.5 for error in errors[1:])
    assert EventfulHandle(model).streams == ["video"]


def test_a_recognizer_is_refused(recognizer_config):
    with pytest.raises(UserError, match="the config's test pipeline makes clips, as a recognizer"):
        FramePipeline(Config.fromfile(recognizer_config))
