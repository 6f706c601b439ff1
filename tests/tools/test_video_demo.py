"""tools/video_demo.py on small videos: its files, its figures, its mistakes."""

from __future__ import annotations

import csv
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mmvitaccel.budget.target import Target
from mmvitaccel.core.macs.counter import MacsCounter
from mmvitaccel.datasets.motion_clips import MotionSetSettings, draw_clip, write_clip
from mmvitaccel.errors import UserError
from mmvitaccel.video_demo import VideoDemo
from mmvitaccel.video_demo.files import FinishedVideo
from mmvitaccel.video_demo.keys import Keys
from mmvitaccel.video_demo.record import record
from mmvitaccel.video_demo.schedule import scaled
from mmvitaccel.video_reader import VideoWriter, open_video
from mmvitaccel.video_reader.signature import codec_name
from tests.tiny_detector import HOOK, on_videos, write_weights

needs_video = pytest.mark.extras("video", "av", "supervision")
FRAMES = 10
ROOT = Path(__file__).parents[2]


@pytest.fixture
def video(tmp_path):
    clip = draw_clip(MotionSetSettings(num_frames=FRAMES, img_size=(40, 56)), "up", "val", 0)
    write_clip(tmp_path / "clip.mp4", clip)
    return tmp_path / "clip.mp4"


@pytest.fixture
def files(write_cocovid, tmp_path):
    """A config whose detector finds much, and its checkpoint."""
    ann_file = write_cocovid(lengths=(3, 3), size=(80, 112))
    text = on_videos(tmp_path, ann_file).replace(
        "classes=('cat', 'dog')", "classes=('кошка', '犬')"
    )
    (tmp_path / "config.py").write_text(text + HOOK)
    (tmp_path / "dense.py").write_text(text)
    write_weights(tmp_path / "config.py", tmp_path / "weights.pth")
    return tmp_path / "config.py", tmp_path / "weights.pth"


def table(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@needs_video
def test_files_and_figures(run_tool, files, video, tmp_path, capsys):
    run_tool("video_demo", video, *files, "--csv", "costs.csv", "--budget", "80%", "--track")
    out = tmp_path / "out.mp4"
    printed = capsys.readouterr().out
    assert f"{FRAMES} frames" in printed and "wrote out.mp4" in printed
    assert codec_name(out) == "H.264"
    with open_video(out) as written:
        pictures = [frame.image for frame in written]
    assert len(pictures) == FRAMES
    # 56 pixels are enlarged to 504, with a strip above
    assert pictures[0].shape[1] == 504 and pictures[0].shape[0] > 360
    rows = table(tmp_path / "costs.csv")
    assert [int(row["frame"]) for row in rows] == list(range(FRAMES))
    assert [row["whole"] for row in rows] == ["1"] + ["0"] * (FRAMES - 1)
    dense = float(rows[0]["dense_macs"])
    assert float(rows[0]["macs"]) == dense
    assert all(float(row["macs"]) <= 0.8 * dense for row in rows[6:])
    assert {row["budget"] for row in rows} == {"80%"}
    assert any(int(row["detections"]) for row in rows)
    assert sorted(p.name for p in tmp_path.glob("*.part*")) == []


@needs_video
def test_schedule_changes_the_budget(run_tool, files, video, tmp_path):
    run_tool(
        "video_demo", video, *files, "--csv", "costs.csv", "--bounds", 2, 30,
        "--budget-schedule", "0:90%,4:60%", "--frames", 8,
    )  # fmt: skip
    rows = table(tmp_path / "costs.csv")
    assert [row["budget"] for row in rows] == ["90%"] * 4 + ["60%"] * 4
    assert int(rows[-1]["k"]) < int(rows[3]["k"]) <= 30


@needs_video
def test_without_a_budget_k_stays_and_a_dense_config_takes_one(run_tool, files, video, tmp_path):
    run_tool("video_demo", video, *files, "--csv", "a.csv")
    assert {row["k"] for row in table(tmp_path / "a.csv")} == {"6"}
    run_tool("video_demo", video, tmp_path / "dense.py", files[1], "--csv", "b.csv", "--k", 6)
    for ours, theirs in zip(table(tmp_path / "a.csv"), table(tmp_path / "b.csv")):
        assert (ours["macs"], ours["detections"]) == (theirs["macs"], theirs["detections"])


@needs_video
def test_predicted_multiply_adds_are_those_that_run(files, video, monkeypatch):
    demo, counted = VideoDemo(*files), []
    step = type(demo.model).test_step

    def counting(self, data):
        if self is not demo.model:  # a copy that measures
            return step(self, data)
        with MacsCounter() as counter:
            out = step(self, data)
        counted.append(counter.report().total)
        return out

    monkeypatch.setattr(type(demo.model), "test_step", counting)
    said = [frame.macs for frame in demo.play(video)]
    assert said[0] == counted[0]
    # Exact attention recomputes a row or two more in some frames
    assert said == pytest.approx(counted, rel=0.1)


@needs_video
def test_a_k_above_the_tokens_costs_as_much_as_all_of_them(files, video, tmp_path):
    """Not what the line through the counted levels would give there."""
    demo = VideoDemo(tmp_path / "dense.py", files[1], k=10**5)
    with pytest.warns(UserWarning, match="all of them pass"):
        frames = list(itertools.islice(demo.play(video), 3))
    assert frames[-1].macs == pytest.approx(frames[-1].dense_macs, rel=0.1)


@needs_video
def test_a_detector_that_is_eventful_in_all_parts(files, tmp_path, video):
    text = files[0].read_text().replace("policy=dict(", "parts='all', policy=dict(")
    (tmp_path / "parts.py").write_text(text)
    frames = list(VideoDemo(tmp_path / "parts.py", files[1], budget="70%").play(video))
    assert all(frame.macs <= 0.7 * frame.dense_macs for frame in frames[6:])


@needs_video
def test_from_python_in_five_lines(files, video):
    demo = VideoDemo(*files, budget="70%", track=True)
    frames = list(demo.play(video))
    assert len(frames) == FRAMES and frames[-1].image.dtype == np.uint8
    assert demo.classes == ("кошка", "犬")
    assert set(frames[-1].detections.keys()) >= {"bboxes", "labels", "scores", "instances_id"}
    assert demo.handle.policy.k == 6  # as it was before
    again = list(demo.play(video))
    assert [frame.macs for frame in again] == [frame.macs for frame in frames]


@needs_video
def test_names_of_classes(files, tmp_path):
    config, weights = files
    content = dict(torch.load(weights), meta=dict(dataset_meta=dict(classes=("a", "b"))))
    torch.save(content, tmp_path / "named.pth")
    assert VideoDemo(config, tmp_path / "named.pth").classes == ("a", "b")
    text = config.read_text().replace("metainfo=dict(classes=('кошка', '犬'))", "metainfo=None")
    (tmp_path / "plain.py").write_text(text)
    classes = VideoDemo(tmp_path / "plain.py", weights).classes
    assert len(classes) == 30 and "airplane" in classes


@needs_video
def test_recomputed_tokens_are_redder(files, tmp_path):
    image = np.full((40, 56, 3), 120, np.uint8)
    with VideoWriter(tmp_path / "still.mp4", 10) as writer:
        for number in range(4):
            moved = image.copy()
            moved[8:16, 8 * number : 8 * number + 8] = 250
            writer.add(moved)
    demo = VideoDemo(*files, least_score=1.1)
    *_, last = demo.play(tmp_path / "still.mp4")
    strip = last.image.shape[0] - 360
    below = last.image[strip:].astype(int)
    redness = below[..., 0] - below[..., 2]
    assert redness.max() > 40  # where the square moved
    assert np.median(redness) < 20


@needs_video
def test_ctrl_c_finishes_the_file(run_tool, files, video, tmp_path, monkeypatch, capsys):
    add = FinishedVideo.add

    def interrupted(self, image):
        add(self, image)
        if self.frames == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(FinishedVideo, "add", interrupted)
    run_tool("video_demo", video, *files, "--csv", "costs.csv")
    assert len(list(open_video(tmp_path / "out.mp4"))) == 3
    assert len(table(tmp_path / "costs.csv")) == 2
    assert "wrote out.mp4" in capsys.readouterr().out


@needs_video
def test_ctrl_c_before_the_first_frame_is_said(
    run_tool, files, video, tmp_path, monkeypatch, capsys
):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("mmvitaccel.video_demo.demo.Costs", interrupted)
    with pytest.raises(SystemExit, match="2"):
        run_tool("video_demo", video, *files)
    assert "interrupted from the keyboard" in capsys.readouterr().err
    assert not (tmp_path / "out.mp4").exists() and not list(tmp_path.glob("*.part*"))


@needs_video
def test_a_real_signal_finishes_the_file(files, tmp_path):
    clip = draw_clip(MotionSetSettings(num_frames=400, img_size=(40, 56)), "up", "val", 0)
    # A fast machine must not finish all frames before the signal
    clip = np.tile(clip, (10, 1, 1, 1))
    write_clip(tmp_path / "long.mp4", clip)
    command = [sys.executable, ROOT / "tools" / "video_demo.py", "long.mp4", *files]
    running = subprocess.Popen(
        [*map(str, command), "--csv", "costs.csv"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    # The encoder writes its first packets some frames after it was given them
    part, end = tmp_path / "out.part.mp4", time.monotonic() + 120
    while time.monotonic() < end and running.poll() is None:
        if part.is_file() and part.stat().st_size:
            break
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=120)
    assert running.returncode == 0, err
    assert "wrote out.mp4" in out
    frames = len(list(open_video(tmp_path / "out.mp4")))
    assert 0 < frames < len(clip)
    assert len(table(tmp_path / "costs.csv")) in (frames - 1, frames)


@needs_video
def test_dense_is_drawn_beside(run_tool, files, video, tmp_path):
    run_tool("video_demo", video, *files, "--frames", 3, "--beside")
    (first, *_) = open_video(tmp_path / "out.mp4")
    assert first.image.shape[1] == 2 * 504
    frames = list(VideoDemo(*files, beside=True).play(video))
    assert all(frame.dense_detections is not None for frame in frames)
    # of the first frame everything is computed, so that both find the same
    boxes = [found.bboxes for found in (frames[0].detections, frames[0].dense_detections)]
    torch.testing.assert_close(*boxes, atol=1e-2, rtol=0)
    strip = frames[1].image.shape[0] - 360
    dense = frames[1].image[strip:, :504].astype(int)
    marked = frames[1].image[strip:, 504:].astype(int)
    assert (marked[..., 0] - marked[..., 2]).mean() > (dense[..., 0] - dense[..., 2]).mean() + 5


@needs_video
def test_pictures_of_two_sizes_and_a_frame_too_large_end_in_a_sentence(
    run_tool, files, tmp_path, capsys
):
    (tmp_path / "pictures").mkdir()
    for number, size in enumerate(((40, 56), (40, 56), (48, 56))):
        cv2.imwrite(str(tmp_path / "pictures" / f"{number}.png"), np.zeros((*size, 3), np.uint8))
    with pytest.raises(SystemExit, match="2"):
        run_tool("video_demo", "pictures", *files, "--csv", "costs.csv")
    assert "give frames of one size for" in capsys.readouterr().err
    assert len(list(open_video(tmp_path / "out.mp4"))) == 2
    assert len(table(tmp_path / "costs.csv")) == 2


@needs_video
def test_keys_change_the_budget_and_stop(run_tool, files, video, tmp_path, monkeypatch):
    pressed = iter(["", "--", "", "+", "q"])
    monkeypatch.setattr(Keys, "pressed", lambda self: next(pressed))
    run_tool("video_demo", video, *files, "--budget", "40ms", "--csv", "costs.csv")
    budgets = [row["budget"] for row in table(tmp_path / "costs.csv")]
    assert budgets == ["40ms", "40ms", "25.6ms", "25.6ms", "32ms"]


@needs_video
def test_a_video_that_breaks_off_leaves_what_was_drawn(files, video, tmp_path):
    class Broken:
        name, fps, length = "broken", 10.0, None

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def __iter__(self):
            yield from itertools.islice(open_video(video), 2)
            raise UserError("broken: it is damaged")

    source = open_video(video)
    source._frames = lambda wanted: iter(Broken())
    with pytest.raises(UserError, match="it is damaged"):
        record(VideoDemo(*files), source, tmp_path / "out.mp4")
    assert len(list(open_video(tmp_path / "out.mp4"))) == 2


@needs_video
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--budget", "fast"], "--budget: 'fast' is not a valid budget; give 200ms, 2fps, 40%"),
        (["--budget", "140%"], "--budget: share=1.4 must be at most 1"),
        (["--budget-schedule", "0:2fps,x:3fps"], "'x:3fps' is not FRAME:BUDGET"),
        (["--budget-schedule", "5:2fps"], "has no budget for the first frame; begin with 0:"),
        (["--budget-schedule", "0:2fps,0:3fps"], "'0:3fps' is not FRAME:BUDGET"),
        (["--out", "out.avi"], "--out out.avi: give a name that ends in .mp4"),
        (["--out", "clip.mp4"], "--out clip.mp4 is the source itself; give another name"),
        (["--csv", "a.txt"], "--csv a.txt: give a name that ends in .csv"),
        (["--out", "clip.mp4/out.mp4"], "cannot be written there"),
        (["--frames", "0"], "--frames 0: give 1 or more"),
        (["--budget", "2fps", "--bounds", "9", "3"], "--bounds 9 3: give two values, 1 <="),
        (["--bounds", "3", "9"], "--bounds 3 9 limit the k of a budget, and there is none"),
        (["--score", "5"], "--score 5: give the least score of a detection, from 0 to 1"),
        (["--score", "nan"], "--score nan: give the least score"),
        (["--budget", ""], "--budget: '' is not a valid budget"),
        (["--budget-schedule", ""], "--budget-schedule '': '' is not FRAME:BUDGET"),
    ],
)
def test_mistakes_end_in_a_sentence(run_tool, files, video, capsys, arguments, message):
    with pytest.raises(SystemExit, match="2"):
        run_tool("video_demo", video, *files, *arguments)
    assert message in capsys.readouterr().err


@needs_video
def test_models_and_sources_that_do_not_serve(
    run_tool, files, video, recognizer_config, tmp_path, capsys
):
    with pytest.raises(SystemExit, match="2"):
        run_tool("video_demo", video, recognizer_config, files[1])
    assert "is a Recognizer3D, which finds no boxes" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        run_tool("video_demo", video, tmp_path / "dense.py", files[1])
    assert "Give an eventful config, or k (--k)" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        run_tool("video_demo", tmp_path / "gone.mp4", *files)
    assert "gone.mp4" in capsys.readouterr().err
    assert not (tmp_path / "out.mp4").exists()


def test_a_missing_package_is_named(run_tool, files, video, monkeypatch, capsys):
    monkeypatch.setattr("mmvitaccel.extras.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="2"):
        run_tool("video_demo", video, *files)
    assert "pip install 'mmvitaccel[video]'" in capsys.readouterr().err


def test_targets_are_scaled():
    assert scaled(Target("fps", 4.0), 2.0) == Target("fps", 2.0)
    assert scaled(Target("share", 0.9), 1.25) == Target("share", 1.0)
    assert scaled(Target("macs", 8e9), 0.5) == Target("macs", 4e9)
