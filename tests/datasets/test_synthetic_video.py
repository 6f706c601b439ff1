"""Generated videos: smooth, consistent over time, and read by mmdet's own video dataset."""

from __future__ import annotations

import json
from collections import defaultdict

import cv2
import numpy as np
import pytest

from mmvitaccel.datasets.synthetic import CLASSES, VideoSetSettings, make_video_set
from mmvitaccel.datasets.synthetic.video import draw_video

SMALL = VideoSetSettings(
    num_train=2, num_val=2, num_frames=18, img_size=(96, 128), objects=(2, 3), seed=5
)


@pytest.fixture(scope="module")
def video_set(tmp_path_factory):
    return make_video_set(tmp_path_factory.mktemp("synthetic") / "videos", SMALL)


def records(video_set, split):
    return json.loads((video_set / "annotations" / f"vid_{split}.json").read_text())


def test_same_seed_gives_the_same_bytes(video_set, tmp_path):
    again = make_video_set(tmp_path / "again", SMALL)
    first, second = (
        {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        for folder in (video_set, again)
    )
    assert first == second
    assert len(first) == 4 * 18 + 2 + 1


@pytest.mark.parametrize("split", ["train", "val"])
def test_records_are_cocovid(video_set, split):
    content = records(video_set, split)
    assert [v["background"] for v in content["videos"]] == ["fixed", "panning"]
    frames = defaultdict(list)
    for image in content["images"]:
        frames[image["video_id"]].append(image["frame_id"])
        read = cv2.imread(str(video_set / split / image["file_name"]))
        assert read.shape == (image["height"], image["width"], 3) == (96, 128, 3)
    assert frames == {1: list(range(18)), 2: list(range(18))}
    sampled = sum(image["is_vid_train_frame"] for image in content["images"])
    assert sampled == (30 if split == "train" else 0)
    videos = {image["id"]: image["video_id"] for image in content["images"]}
    owner: dict[int, tuple[int, int]] = {}
    for annotation in content["annotations"]:
        assert annotation["video_id"] == videos[annotation["image_id"]]
        assert annotation["instance_id"] >= 1
        # one instance is one object: of one video and of one class
        belongs = (annotation["video_id"], annotation["category_id"])
        assert owner.setdefault(annotation["instance_id"], belongs) == belongs
        x, y, width, height = annotation["bbox"]
        assert 0 <= x < x + width <= 128 and 0 <= y < y + height <= 96
    assert {video for video, _ in owner.values()} == {1, 2}


def test_train_and_val_videos_differ(video_set):
    for name in ("video_00000", "video_00001"):
        first, second = (
            (video_set / split / name / "000000.png").read_bytes() for split in ("train", "val")
        )
        assert first != second


def test_mmdet_reads_it(video_set):
    from mmdet.datasets import BaseVideoDataset

    dataset = BaseVideoDataset(
        data_root=str(video_set),
        ann_file="annotations/vid_train.json",
        data_prefix=dict(img_path="train/"),
        metainfo=dict(classes=CLASSES),
        test_mode=True,
        pipeline=[],
    )
    content = records(video_set, "train")
    assert len(dataset) == 2
    for index in range(2):
        video = dataset.get_data_info(index)
        assert [image["frame_id"] for image in video["images"]] == list(range(18))
        for image in video["images"]:
            expected = [a for a in content["annotations"] if a["image_id"] == image["img_id"]]
            assert [i["instance_id"] for i in image["instances"]] == [
                a["instance_id"] for a in expected
            ]
            assert [i["bbox_label"] + 1 for i in image["instances"]] == [
                a["category_id"] for a in expected
            ]


def test_boxes_move_smoothly(video_set):
    content = records(video_set, "train")
    frame_of = {image["id"]: image["frame_id"] for image in content["images"]}
    tracks = defaultdict(dict)
    for annotation in content["annotations"]:
        tracks[annotation["instance_id"]][frame_of[annotation["image_id"]]] = annotation
    steps = []
    for track in tracks.values():
        for frame, annotation in track.items():
            following = track.get(frame + 1)
            whole = following and min(annotation["visibility"], following["visibility"]) >= 0.97
            if whole:
                steps.append(np.subtract(corners(following), corners(annotation)))
    steps = np.abs(steps)
    assert len(steps) > 40
    # what moves may cover 2 % of the shorter side a frame, relative to a ground that may do the
    # same; growth, turning and whole pixels come on top
    assert steps.max() <= 2 * 0.02 * 96 + 4
    assert steps.mean() > 0.1


def corners(annotation: dict) -> np.ndarray:
    x, y, width, height = annotation["bbox"]
    return np.array([x, y, x + width, y + height])


def test_fixed_background_keeps_its_bytes():
    settings = VideoSetSettings(num_frames=10, backgrounds=("fixed",), objects=(2, 2), still=0.0)
    frames, touched = [], np.zeros(settings.img_size, np.uint8)
    for picture, visible in draw_video(settings, "train", 0):
        frames.append(picture)
        for item in visible:
            touched |= item.mask
    # shadows and the lens's blur reach beyond the objects
    still = cv2.dilate(touched, np.ones((49, 49), np.uint8)) == 0
    assert still.mean() > 0.2
    for frame in frames[1:]:
        np.testing.assert_array_equal(frame[still], frames[0][still])
        assert not np.array_equal(frame, frames[0])


def test_what_lies_still_has_the_same_pixels_in_each_frame():
    settings = VideoSetSettings(num_frames=4, backgrounds=("fixed",), still=1.0)
    first, *others = [picture for picture, _ in draw_video(settings, "val", 0)]
    for frame in others:
        np.testing.assert_array_equal(frame, first)


def test_sensor_noise_is_new_in_each_frame():
    settings = VideoSetSettings(num_frames=2, backgrounds=("fixed",), still=1.0, noise=2.0)
    first, second = (p.astype(np.int64) for p, _ in draw_video(settings, "val", 0))
    assert 1.0 < (first - second).std() < 5.0


def test_panning_background_moves_as_one():
    settings = VideoSetSettings(
        num_frames=20,
        backgrounds=("panning",),
        objects=(1, 1),
        object_size=(0.12, 0.12),
        still=1.0,
        speed=0.02,
    )
    frames = [p.mean(axis=2, dtype=np.float32) for p, _ in draw_video(settings, "train", 1)]
    window = cv2.createHanningWindow(frames[0].shape[::-1], cv2.CV_32F)
    # phaseCorrelate multiplies the window into its inputs
    pairs = [(a.copy(), b.copy()) for a, b in zip(frames, frames[1:])]
    shifts = np.array([cv2.phaseCorrelate(a, b, window)[0] for a, b in pairs])
    assert np.abs(shifts).max() <= 0.02 * 160 + 0.3
    assert np.abs(shifts.sum(axis=0)).max() > 8
    # the whole view follows: the first frame, moved by the shifts, is a later one
    total = shifts[:5].sum(axis=0)
    moved = cv2.warpAffine(frames[0], np.float64([[1, 0, total[0]], [0, 1, total[1]]]), (160, 160))
    inner = (slice(16, -16), slice(16, -16))
    assert np.abs(moved[inner] - frames[5][inner]).mean() < 0.3 * frames[0][inner].std()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(num_frames=0), "num_frames=0"),
        (dict(backgrounds=("shaky",)), r"backgrounds=\('shaky',\).*'fixed', 'panning'"),
        (dict(backgrounds=()), r"backgrounds=\(\)"),
        (dict(still=1.5), "still=1.5"),
        (dict(speed=0.0), "speed=0.0"),
        (dict(img_size=(8, 8)), r"img_size=\(8, 8\)"),
    ],
)
def test_settings_that_cannot_be_drawn(wrong, message):
    with pytest.raises(ValueError, match=message):
        VideoSetSettings(**wrong)
