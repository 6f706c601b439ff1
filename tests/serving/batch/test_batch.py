"""Videos one after the other on one worker, without Ray: what is written, and what is not."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mmvitaccel.errors import UserError
from mmvitaccel.serving.batch import BatchSettings, BatchVideo, find_videos
from mmvitaccel.serving.batch.outcome import finished, result_path, write_result
from mmvitaccel.serving.batch.run import VideoWorker
from tests.serving.batch.batch_data import write_broken, write_files, write_video


@pytest.fixture
def files(tmp_path):
    return write_files(tmp_path)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def without_times(path):
    found = lines(path)[1:]
    for line in found:
        line.pop("milliseconds", None)
        line.pop("outcome", None)
    return found


def test_videos_of_a_folder_and_of_a_list(tmp_path):
    for name in ("a.mp4", "b/c.AVI", "b/c.txt", "d.jsonl"):
        (tmp_path / "videos" / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / "videos" / name).write_bytes(b"x")
    assert [video.name for video in find_videos(tmp_path / "videos")] == ["a.mp4", "b/c.AVI"]
    (tmp_path / "list.txt").write_text(
        "videos/a.mp4\n\n videos/../videos/a.mp4\n/elsewhere/e.mp4\n"
    )
    videos = find_videos(tmp_path / "list.txt")
    assert [video.name for video in videos] == ["elsewhere/e.mp4", "videos/a.mp4"]
    assert videos[1].path == str(tmp_path / "videos" / "a.mp4")
    assert find_videos(tmp_path / "videos" / "a.mp4")[0].name == "a.mp4"
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty holds no videos \(\.mp4,"):
        find_videos(tmp_path / "empty")
    with pytest.raises(UserError, match="nothing does not exist"):
        find_videos(tmp_path / "nothing")


def test_two_videos_that_would_have_one_result_are_refused(tmp_path):
    away = tmp_path / "away" / "a.mp4"
    inside = tmp_path / "list" / away.relative_to(away.anchor)
    for path in (away, inside):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    listed = tmp_path / "list" / "list.txt"
    listed.write_text(f"{away}\n{inside.relative_to(listed.parent)}\n")
    with pytest.raises(UserError, match=r"would both have the result .*away/a\.mp4") as refused:
        find_videos(listed)
    assert str(away) in str(refused.value) and str(inside) in str(refused.value)
    listed.write_text(f"{away}\n{away}\n{tmp_path}/list/../away/a.mp4\n")
    assert [video.path for video in find_videos(listed)] == [str(away)]


def test_a_list_may_begin_with_the_mark_of_utf_8(tmp_path):
    (tmp_path / "list.txt").write_text("a.mp4\r\nb.mp4\r\n", encoding="utf-8-sig")
    assert [video.name for video in find_videos(tmp_path / "list.txt")] == ["a.mp4", "b.mp4"]


def test_a_live_source_is_refused():
    with pytest.raises(UserError, match="rtsp://host/a is a live source without an end"):
        BatchVideo("a", "rtsp://host/a").identity()


def test_no_state_of_a_video_reaches_the_next(files, tmp_path):
    """One worker plays three videos, of which one breaks off; each result is as the video alone."""
    settings = BatchSettings(*map(str, files), budget="60%", track=True)
    names = ["a.mp4", "broken", "b.mp4", "a again.mp4"]
    for seed, name in enumerate(names):
        if name != "broken":
            write_video(tmp_path / "videos" / name, seed=0 if name.startswith("a") else seed)
    write_broken(tmp_path / "videos" / "broken")
    worker = VideoWorker(settings, settings.described(), str(tmp_path / "together"), 1)
    outcomes = {}
    for name in names:
        row = worker({"name": name, "path": str(tmp_path / "videos" / name)})
        outcomes[name] = json.loads(row["outcome"])
    assert "3.png (2 bytes) cannot be read" in outcomes["broken"]["error"]
    assert not outcomes["broken"]["fault"]
    assert not list((tmp_path / "together").glob("broken*"))
    for name in ("a.mp4", "b.mp4", "a again.mp4"):
        alone = BatchVideo(name, str(tmp_path / "videos" / name))
        write_result(settings.detector(), alone, tmp_path / "alone", settings.described(), None)
        together = without_times(tmp_path / "together" / f"{name}.jsonl")
        assert together == without_times(tmp_path / "alone" / f"{name}.jsonl")
        frames = together[:-1]
        assert [frame["frame"] for frame in frames] == list(range(6))
        assert sum(len(frame["detections"]) for frame in frames) == outcomes[name]["detections"] > 0
        assert frames[0]["whole"] and not frames[1]["whole"]
    a, b = (without_times(tmp_path / "together" / f"{n}.mp4.jsonl") for n in "ab")
    assert a != b


def test_results_are_taken_up_again(files, tmp_path):
    settings = BatchSettings(*map(str, files))
    described, out = settings.described(), tmp_path / "out"
    video = BatchVideo("a.mp4", str(write_video(tmp_path / "a.mp4")))
    assert finished(out, video, described) is None
    outcome = write_result(settings.detector(), video, out, described, None)
    again = finished(out, video, described)
    assert again.kept and again.line() == f"{outcome.line()}, already done"
    assert again.frames == 6 and 0 < again.macs < again.dense_macs

    other = BatchSettings(*map(str, files), budget="40%").described()
    with pytest.raises(UserError, match=r"other settings \(budget None, now '40%'\)"):
        finished(out, video, other)
    changed = BatchSettings(*map(str, files), options={"model.test_cfg.max_per_img": 3})
    with pytest.raises(UserError, match="other settings"):
        finished(out, video, changed.described())
    write_video(tmp_path / "a.mp4", seed=1)
    assert finished(out, video, described) is None
    result_path(out, video).write_text("hello\n")
    with pytest.raises(UserError, match="is not a result of a batch"):
        finished(out, video, described)


def test_a_fault_of_the_program_keeps_its_traceback(files, tmp_path, monkeypatch):
    settings = BatchSettings(*map(str, files))
    worker = VideoWorker(settings, settings.described(), str(tmp_path / "out"), 1)
    video = {"name": "a.mp4", "path": str(write_video(tmp_path / "a.mp4"))}
    with monkeypatch.context() as patched:
        patched.setattr("mmvitaccel.serving.batch.outcome._row", lambda frame: 1 / 0)
        outcome = json.loads(worker(video)["outcome"])
    assert outcome["error"] == "ZeroDivisionError: division by zero (a bug of the program)"
    assert "Traceback" in outcome["fault"]
    assert not list((tmp_path / "out").iterdir())
    assert json.loads(worker(video)["outcome"])["error"] == ""


def test_bounds_that_are_none(files):
    with pytest.raises(UserError, match="--bounds 9 3: give two values"):
        BatchSettings(*map(str, files), budget="40%", bounds=(9, 3))
    with pytest.raises(UserError, match="--bounds 3 9 limit the k of a budget, and there is none"):
        BatchSettings(*map(str, files), bounds=(3, 9))


def test_a_score_that_no_detection_has(files):
    with pytest.raises(UserError, match="--score 5: give the least score"):
        BatchSettings(*map(str, files), least_score=5.0)


def test_boxes_are_those_of_the_detector(files, tmp_path):
    settings = BatchSettings(*map(str, files))
    video = BatchVideo("a.mp4", str(write_video(tmp_path / "a.mp4")))
    write_result(settings.detector(), video, tmp_path, settings.described(), None)
    frames = lines(tmp_path / "a.mp4.jsonl")[1:-1]
    for line, frame in zip(frames, settings.detector().play(video.path)):
        found = frame.detections
        boxes = np.array([each["box"] for each in line["detections"]]).reshape(-1, 4)
        np.testing.assert_allclose(boxes, found.bboxes.numpy(), atol=0.0051)
        assert [each["label"] for each in line["detections"]] == found.labels.tolist()
        assert frame.image is None and frame.dense_milliseconds is None


def test_a_checkpoint_that_is_not_there(files):
    with pytest.raises(UserError, match=r"gone\.pth does not exist; give the path of a \.pth file"):
        BatchSettings(str(files[0]), "gone.pth").described()
    address = "https://host/weights.pth"
    assert BatchSettings(str(files[0]), address).described()["checkpoint"] == address
