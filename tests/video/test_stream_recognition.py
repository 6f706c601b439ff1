"""A stream step by step against whole clips, and sources that are not what they should be."""

from __future__ import annotations

import copy
import importlib.util
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmvitaccel.adapters.tome.apply import apply_tome
from mmvitaccel.core.macs.counter import count_macs
from mmvitaccel.datasets.motion_clips import MOTIONS, MotionSetSettings, draw_clip, write_clip
from mmvitaccel.errors import UserError
from mmvitaccel.runner.session import build_model
from mmvitaccel.video.clip_steps import ClipSettings, StepMaker
from mmvitaccel.video.stream_recognition import StreamRecognizer, StreamRun
from mmvitaccel.video.stream_report import read_names, recognise
from mmvitaccel.video_reader import Frame, open_video

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs/vivit/vivit-tiny_16x1x1_motion-clips.py"
WINDOW = 8


def test_labels_that_are_no_text(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_bytes(b"cat\n\xff\n")
    with pytest.raises(UserError, match=r"--labels: .*labels\.txt is not UTF-8 text"):
        read_names(path)
    path.write_text("\u732b\n\ndog\n", encoding="utf-8")
    assert read_names(path) == ["\u732b", "dog"]


def config(frame_interval: int = 1) -> Config:
    cfg = Config.fromfile(CONFIG)
    cfg.model.backbone.update(embed_dim=16, spatial_depth=2, temporal_depth=1, num_heads=2)
    cfg.model.cls_head.in_channels = 16
    cfg.val_dataloader.dataset.pipeline[1].frame_interval = frame_interval
    return cfg


def make_model(cfg: Config) -> torch.nn.Module:
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    for parameter in model.parameters():
        parameter.data = torch.randn_like(parameter) * 0.3
    return model


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    settings = MotionSetSettings(num_frames=60, img_size=(64, 80))
    return draw_clip(settings, "right", "val", 0)


@pytest.fixture
def video(clip, tmp_path) -> Path:
    write_clip(tmp_path / "clip.mp4", clip)
    return tmp_path / "clip.mp4"


def whole_clips(model, frames: np.ndarray, interval: int) -> torch.Tensor:
    """Every window of 16 frames, two frames apart, as the test pipeline would give it."""
    scores = []
    taken = frames[::interval, :, 8:72]  # CenterCrop to 64 x 64
    for first in range(0, len(taken) - 15, 2):
        x = torch.from_numpy(taken[first : first + 16]).permute(3, 0, 1, 2).float()
        x = (x - 114.75) / 57.375
        with torch.no_grad():
            scores.append(model.cls_head(model.backbone(x[None])).softmax(1)[0])
    return torch.stack(scores)


@pytest.mark.parametrize("interval", [1, 3])
def test_every_window_is_the_whole_clip_of_its_frames(video, interval):
    cfg = config(interval)
    model = make_model(cfg)
    source = open_video(str(video))
    maker = StepMaker(ClipSettings.of(cfg), 2, source.fps)
    recognizer, found, frames = StreamRecognizer(model, WINDOW), [], []
    for number, frame in enumerate(source):
        frames.append(frame.image)
        step = maker.add(frame)
        if step is not None:
            scores = recognizer.push(step)
            # A result is there as soon as its last frame is: nothing was read ahead.
            assert source.given == number + 1
            found += [] if scores is None else [scores[""]]
        assert len(recognizer.steps) <= WINDOW
    expected = whole_clips(model, np.stack(frames), interval)
    assert len(expected) == (60 // interval - 16) // 2 + 1
    torch.testing.assert_close(torch.stack(found), expected, rtol=0, atol=1e-5)


def test_frames_are_taken_at_the_rate_of_the_training(clip):
    cfg = config(2)
    cfg.val_dataloader.dataset.pipeline[1].target_fps = 60
    settings = ClipSettings.of(cfg)
    for fps, expected in (
        (60, [0, 2, 4, 6]),
        (30, [0, 1, 2, 3]),
        (150, [0, 5, 10, 15]),
        (50, [0, 2, 3, 5]),
    ):
        maker = StepMaker(settings, 100, fps)
        frames = [Frame(clip[0], number, number / fps) for number in range(20)]
        assert [frame.index for frame in frames if maker.takes(frame)][:4] == expected, fps


def test_figures_of_a_step(clip):
    """Multiply-adds as counted of the parts; the dense model beside a merging one only."""
    model = make_model(config())
    step = torch.from_numpy(clip[:2, :, :64]).permute(3, 0, 1, 2)[None]
    spatial = count_macs(model.backbone.spatial, torch.zeros(1, 64, 16), (8, 8)).total
    embedding = 64 * 16 * 3 * 2 * 8 * 8
    temporal = count_macs(model.backbone.temporal, torch.zeros(1, 2, 16), (2,)).total + 16 * 7
    plain = StreamRun(model, 2)
    results = [plain.step(step) for _ in range(3)]
    assert [r.macs for r in results] == [spatial + embedding] + [spatial + embedding + temporal] * 2
    assert all(r.dense_ms is None and r.ms > 0 for r in results)
    assert results[0].scores is None
    apply_tome(model, 8)
    merging = StreamRun(model, 2)
    second = [merging.step(step) for _ in range(2)][1]
    assert second.macs < results[1].macs
    assert second.dense_ms > 0
    assert (second.scores[""] - results[1].scores[""]).abs().max() > 1e-6
    uncounted = StreamRun(model, 2, count=False, against_dense=False).step(step)
    assert (uncounted.macs, uncounted.dense_ms) == (None, None)


def test_report(video, capsys):
    cfg = config()
    report = recognise(
        make_model(cfg),
        open_video(str(video)),
        ClipSettings.of(cfg),
        [MOTIONS],
        against_dense=False,
    )
    assert len(report.results) == 30
    out = capsys.readouterr().out.splitlines()
    assert out[1].split()[:2] == ["0", "0.04"]
    assert out[1].endswith("(1 of 8 steps)")
    best = report.results[7].scores[""]
    assert out[8].endswith(f"* {MOTIONS[int(best.argmax())]} {float(best.max()):.2f}")
    assert out[31].startswith("first step ")
    changes = sum("*" in line for line in out[1:31])
    labels = [int(r.scores[""].argmax()) for r in report.results if r.scores]
    assert changes == 1 + sum(a != b for a, b in zip(labels, labels[1:]))


def test_video_shorter_than_the_window(tmp_path, clip, capsys):
    """Its last step is repeated, and that is said."""
    write_clip(tmp_path / "short.mp4", clip[:7])
    cfg = config()
    model = make_model(cfg)
    recognise(model, open_video(str(tmp_path / "short.mp4")), ClipSettings.of(cfg))
    assert "of 3 steps; the last was repeated to fill the window of 8" in capsys.readouterr().out
    recognizer = StreamRecognizer(model, 3)
    steps = [torch.from_numpy(clip[i : i + 2, :, :64]).permute(3, 0, 1, 2)[None] for i in (0, 2)]
    for step in steps:
        recognizer.push(step)
    filled = StreamRecognizer(model, 3)
    for step in (*steps, steps[-1]):
        expected = filled.push(step)
    torch.testing.assert_close(recognizer.scores()[""], expected[""])


def test_one_frame_is_no_step(tmp_path, clip):
    write_clip(tmp_path / "one.mp4", clip[:1])
    cfg = config()
    with pytest.raises(UserError, match=r"one\.mp4 has 1 frames, fewer than the 2 of one step"):
        recognise(make_model(cfg), open_video(str(tmp_path / "one.mp4")), ClipSettings.of(cfg))


def test_verbs_and_nouns(video, capsys):
    cfg = config()
    cfg.model.cls_head = dict(
        type="mmvitaccel.VerbNounHead", num_verbs=3, num_nouns=5, in_channels=16
    )
    model, settings = make_model(cfg), ClipSettings.of(cfg)
    report = recognise(model, open_video(str(video)), settings, max_steps=8)
    assert [len(s) for s in report.results[-1].scores.values()] == [3, 5]
    names = [["open", "close", "cut"], ["door", "tap", "egg", "cup", "pan"]]
    recognise(model, open_video(str(video)), settings, names, max_steps=8)
    line = next(line for line in capsys.readouterr().out.splitlines()[10:] if "*" in line)
    verb, noun, _ = line.partition("*")[2].split()
    assert verb in names[0]
    assert noun in names[1]
    with pytest.raises(UserError, match=r"the files have 3 names, but classifier 2 has 5 classes"):
        recognise(model, open_video(str(video)), settings, names[:1], max_steps=8)


def test_sources_that_cannot_be_opened(tmp_path):
    with pytest.raises(
        UserError, match=r"the video gone\.mp4 does not exist; give a file, a folder"
    ):
        open_video("gone.mp4")
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(UserError, match=r"text\.mp4 cannot be opened as a video"):
        open_video(str(tmp_path / "text.mp4"))
    with pytest.raises(UserError, match="cannot open camera:7; check"):
        open_video("camera:7")


def test_video_that_ends_in_the_middle(tmp_path, real_video, capsys):
    data, position = bytearray(real_video.read_bytes()), 0
    while position < len(data):
        size, kind = struct.unpack(">I4s", data[position : position + 8])
        if kind == b"mdat":
            middle, end = position + 8 + size // 8, position + size
            data[middle:end] = bytes(end - middle)
        position += size
    (tmp_path / "damaged.mp4").write_bytes(data)
    cfg = config()
    cfg.val_dataloader.dataset.pipeline.insert(3, dict(type="Resize", scale=(-1, 64)))
    source = open_video(str(tmp_path / "damaged.mp4"))
    report = recognise(make_model(cfg), source, ClipSettings.of(cfg), count=False)
    assert 8 < len(report.results) < 140
    assert f"ended at frame {source.given} of 300: it is damaged" in capsys.readouterr().out


def test_configs_that_cannot_be_streamed(video):
    cfg = config()
    no_sampling = copy.deepcopy(cfg)
    del no_sampling.val_dataloader.dataset.pipeline[1]
    with pytest.raises(UserError, match="no SampleFrames and FormatShape"):
        ClipSettings.of(no_sampling)
    crops = copy.deepcopy(cfg)
    crops.val_dataloader.dataset.pipeline[3] = dict(type="ThreeCrop", crop_size=64)
    maker = StepMaker(ClipSettings.of(crops), 2, 25)
    with pytest.raises(UserError, match=r"makes 3 pictures of a frame; .*CenterCrop"):
        maker.add(next(iter(open_video(str(video)))))
    with pytest.raises(UserError, match="has a Linear, which has no steps to stream"):
        StreamRecognizer(torch.nn.ModuleDict({"backbone": torch.nn.Linear(1, 1)}), 2)


def test_tool(video, tmp_path, capsys):
    cfg = config()
    cfg.dump(tmp_path / "config.py")
    torch.save({"state_dict": make_model(cfg).state_dict()}, tmp_path / "model.pth")
    spec = importlib.util.spec_from_file_location("stream", ROOT / "tools/stream_recognize.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    arguments = [str(video), str(tmp_path / "config.py"), str(tmp_path / "model.pth")]
    tool.main([*arguments, "--max-steps", "9", "--no-macs"])
    lines = [line for line in capsys.readouterr().out.splitlines() if "INFO" not in line]
    assert len(lines) == 1 + 9 + 2
    with pytest.raises(SystemExit):
        tool.main(["gone.mp4", *arguments[1:]])
    assert capsys.readouterr().err == (
        "error: the video gone.mp4 does not exist; give a file, a folder or pattern of numbered "
        "pictures (frames/, %06d.png, *.png), a URL (rtsp://, http://), or a camera (camera, "
        "/dev/video0, 0).\n"
    )


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        (("--max-steps", "0"), "--max-steps 0: give 1 or more."),
        (("--reconnect", "-1"), "--reconnect -1: give 0 or more."),
    ],
)
def test_numbers_without_meaning(run_tool, capsys, option, sentence):
    with pytest.raises(SystemExit, match=r"^2$"):
        run_tool("stream_recognize", "video.mp4", "config.py", "checkpoint.pth", *option)
    assert capsys.readouterr().err == f"error: {sentence}\n"
